"""DICOM reports: structured reports, secondary captures and presentation states, and what they share."""
