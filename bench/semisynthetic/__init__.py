"""Semi-synthetic studies: healthy T2 volumes, deformed, with synthetic stenoses.

subjects      the volumes, and their manual marks
canal         the canal's curve in a volume, and the diameters of sac and cord along it
straightened  a volume resampled to canal coordinates, with even brightness, cached on disk
anatomy       one patient derived from a subject: posture, sizes, stenoses and the truth
landmarks     points of the patient that tell its levels apart
deformation   map from the patient's points to the subject's
tissue        signal at a point of such a patient
source        studies of one subject, and of several subjects in turn
acquired      a volume without changes, resliced to a study
"""
