"""Parts of `stenosis-trt bench gpu-suite`.

measurements  repeated calls, values with percentiles and limits, report of a scenario
system        system under test: a pack, its plans, studies and backends
copies        copies of studies with new identifiers
utilisation   GPU utilisation by NVML
report        JSON record, table and Markdown summary of a run

The scenarios are in plans, answers, device_time, files, traffic and grader.
"""
