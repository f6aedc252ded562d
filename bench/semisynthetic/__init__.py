"""Studies whose anatomy is real and whose stenoses are made: healthy T2 volumes, bent and pressed in.

subjects     the volumes, and what was marked on them by hand
canal        where a volume's canal runs, how wide sac and cord are along it
straight     a volume in canal coordinates, evenly bright, kept on disk
anatomy      one patient made from a subject: posture, sizes, stenoses and the truth
deformation  how tissue gives way to a stenosis
tissue       signal at a point of such a patient
study        one patient seen by two series
source       studies of several subjects in turn
acquired     a volume as it was acquired, as a study
"""
