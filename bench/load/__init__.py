"""Load scenarios by the rules of MLPerf: latency and throughput of the product."""
