"""How results hold under the conditions of `phantom.conditions`: figures against strength, tables, a plot."""
