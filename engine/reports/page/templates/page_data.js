// The studies of the page, as html_study.py writes them, with what the overview needs besides.

const LEVELS = ["C2/3", "C3/4", "C4/5", "C5/6", "C6/7", "C7/T1"];
const GRADE_WORDS = ["no stenosis", "mild stenosis", "moderate stenosis", "severe stenosis"];
const HEALTHY_Z = 1.96;

const run = JSON.parse(byId("run").textContent);
const pictureScripts = [...document.querySelectorAll('script[data-part="pictures"]')];
const studies = [...document.querySelectorAll('script[data-part="study"]')].map(read);
const byUid = new Map(studies.map((study) => [`${study.number} ${study.study_uid}`, study]));

function read(script, index) {
  const study = JSON.parse(script.textContent);
  study.index = index;
  const graded = study.levels.filter((level) => level.grade !== null);
  study.levels.forEach((level, place) => {
    level.study = study;
    level.place = place;
    level.key = `${study.folder} ${level.level}`;
    level.flags = [...new Set([...level.warnings, ...study.warnings])];
  });
  study.flags = [...new Set(study.levels.flatMap((level) => level.flags))];
  study.worst = graded.length ? Math.max(...graded.map((level) => level.grade)) : null;
  study.burden = graded.length ? graded.reduce((sum, level) => sum + level.grade, 0) : null;
  study.ratio = lowest(study.levels.map((level) => level.ratio));
  study.confidence = lowest(graded.map((level) => level.confidence));
  study.words = [study.number, study.path, study.study_uid, study.patient_id, ...study.flags].join("\n").toLowerCase();
  study.textWords = study.text.toLowerCase();
  return study;
}

function lowest(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? Math.min(...known) : null;
}

/** Return the pictures of a study, by name; null where there are none. */
function picturesOf(study) {
  if (study.pictures === undefined) study.pictures = JSON.parse(pictureScripts[study.index].textContent);
  return study.pictures;
}

/** Return the words of a flag. */
function meaning(flag) {
  for (const study of studies) if (flag in study.meanings) return study.meanings[flag];
  return flag;
}
