// What the reader decided, kept in the browser under the key of the run. It names levels by the hash of their
// study, never by a patient, a path or a UID.

const STORE = `stenosis-trt review ${run.key}`;
const DECISIONS = ["accept", "regrade", "reject", "artefact"];

const review = { on: false, advance: true, blind: false, keys: true, decisions: new Map(), undo: [], listeners: [] };

/** Read what an earlier visit left. */
function restoreReview() {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(STORE));
  } catch (error) {
    say(`The progress of an earlier review cannot be read here (${error.name}). Import review.csv instead.`);
  }
  if (kept === null || typeof kept !== "object") return;
  for (const name of ["on", "advance", "blind", "keys"]) {
    if (typeof kept[name] === "boolean") review[name] = kept[name];
  }
  for (const [key, value] of Object.entries(kept.decisions || {})) {
    if (validDecision(value)) review.decisions.set(key, value);
  }
}

function validDecision(value) {
  if (value === null || typeof value !== "object" || typeof value.note !== "string") return false;
  if (typeof value.at !== "string") return false;
  if (value.decision === "") return value.grade === null && value.note !== "";
  const grade = Number.isInteger(value.grade) && value.grade >= 0 && value.grade <= 3;
  return DECISIONS.includes(value.decision)
    && (["accept", "regrade"].includes(value.decision) ? grade : value.grade === null);
}

/** Keep everything in the browser, and tell the parts of the page that show it. */
function keepReview(level = null) {
  const { on, advance, blind, keys } = review;
  const decisions = Object.fromEntries(review.decisions);
  try {
    localStorage.setItem(STORE, JSON.stringify({ on, advance, blind, keys, decisions }));
  } catch (error) {
    say(`This browser keeps no progress (${error.name}). Export review.csv before you close the page.`);
  }
  for (const listener of review.listeners) listener(level);
}

/** Return the decision on a level: `decision` is "" where only a note was written; null where there is none. */
function decisionOn(level) {
  return review.decisions.get(level.key) || null;
}

function isReviewed(level) {
  const made = decisionOn(level);
  return made !== null && made.decision !== "";
}

/** Return the reader's grade of a level, or null. */
function readerGrade(level) {
  return decisionOn(level)?.grade ?? null;
}

/** Return whether the computed result of a level may be shown. */
function isShown(level) {
  return !(review.on && review.blind) || isReviewed(level);
}

/** Record a decision. A grade that equals the computed one is an acceptance. */
function decide(level, decision, grade = null) {
  if (decision === "accept") {
    if (level.grade === null) {
      say(`${level.level} has no computed grade to accept. Give one with 0 to 3, or press x.`);
      return false;
    }
    grade = level.grade;
  } else if (decision === "regrade" && grade === level.grade) {
    decision = "accept";
  }
  const before = decisionOn(level);
  review.undo.push([level, before]);
  const blinded = before?.blinded ?? !isShown(level);
  review.decisions.set(level.key, { decision, grade, note: before?.note || "", at: new Date().toISOString(), blinded });
  keepReview(level);
  return true;
}

/** Take the last decision back. Return its level, or null if there is none. */
function undoDecision() {
  const last = review.undo.pop();
  if (!last) return null;
  const [level, before] = last;
  if (before) review.decisions.set(level.key, before);
  else review.decisions.delete(level.key);
  keepReview(level);
  return level;
}

/** Write a note on a level. */
function writeNote(level, note) {
  const before = decisionOn(level);
  if ((before?.note || "") === note) return;
  const made = { ...(before || { decision: "", grade: null, blinded: !isShown(level) }), note, at: new Date().toISOString() };
  if (made.decision === "" && note === "") review.decisions.delete(level.key);
  else review.decisions.set(level.key, made);
  keepReview(level);
}

/** Return a decision in words. */
function decisionWords(level) {
  const made = decisionOn(level);
  if (!made || made.decision === "") return "not reviewed";
  return { accept: `accepted, grade ${made.grade}`, regrade: `my grade ${made.grade}`, reject: "rejected", artefact: "artefact" }[made.decision];
}
