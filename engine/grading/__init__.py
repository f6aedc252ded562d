"""From a chosen study to its result: read ahead, levels, cord, matching, and the pipeline that joins them."""
