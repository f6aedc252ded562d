"""From a result to what people and systems read: DICOM reports, pictures, pages, text. One module a format.

A format of one study is a module with `make(report, options)`, a function from a `StudyReport` to files in
memory. A format of a whole run is a module with `compose`. `formats` lists both.
"""
