"""What `stenosis-trt bench gpu-suite` is made of.

figures      what is measured, with its spread, its clock and its limit
pace         how often something is done to be timed
sheet        what one scenario has measured so far
system       what is measured: a pack, its plans, studies, and how a backend is opened
copies       more studies than were made, by other identifiers
utilisation  how busy the GPU is, as its driver counts
report       record, table and summary of a run

and one module a scenario, or two: plans, answers, device_time, files, traffic, grader.
"""
