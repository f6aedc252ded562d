// Which view is shown, keys, and the start of the page.

const home = { scroll: 0, from: null };

/** Show what the address names: a study, or all of them. */
function route() {
  leaveNote();
  const [, number, name] = location.hash.match(/^#(\d+)(?:\/([A-Z0-9-]+))?$/) || [];
  const study = studies.find((other) => String(other.number) === number);
  const level = study && (study.levels.find((other) => other.level.replace("/", "-") === name) || study.levels[0]);
  const wasHome = byId("study").hidden;
  if (level) {
    if (wasHome) {
      home.scroll = scrollY;
      startQueue();
    }
    home.from = study;
    byId("overview").hidden = true;
    byId("study").hidden = false;
    showStudy(level);
    if (wasHome) scrollTo(0, 0);
    return;
  }
  byId("study").hidden = true;
  byId("study").replaceChildren();
  byId("overview").hidden = false;
  view.level = null;
  document.title = "Cervical stenosis report";
  if (list.stale) filter();
  if (home.from) {
    scrollTo(0, home.scroll);
    list.rows.get(home.from)?.querySelector("a").focus({ preventScroll: true });
    home.from = null;
  }
}

const STUDY_KEYS = {
  j: () => go(1), k: () => go(-1), J: () => goStudy(1), K: () => goStudy(-1),
  o: toggleOverlay, z: toggleLarge, c: copyText, Escape: () => { location.hash = ""; },
};
const REVIEW_KEYS = {
  0: () => act(view.level, "regrade", 0), 1: () => act(view.level, "regrade", 1),
  2: () => act(view.level, "regrade", 2), 3: () => act(view.level, "regrade", 3),
  a: () => act(view.level, "accept"), r: () => act(view.level, "reject"), x: () => act(view.level, "artefact"),
  n: () => byId("note").focus(), u: undo,
};
const PAGE_KEYS = { v: toggleReview, "/": () => { location.hash = ""; setTimeout(() => byId("filter-text").focus()); }, "?": openHelp };

function openHelp() {
  byId("help").showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const { target, key } = event;
  if (target.closest("input:not([type=checkbox]), select, textarea")) {
    if (key === "Escape") {
      target.blur();
      event.preventDefault();
    }
    return;
  }
  if (!review.keys && key !== "Escape") return;
  const keys = { ...PAGE_KEYS, ...(view.level ? STUDY_KEYS : {}), ...(view.level && review.on ? REVIEW_KEYS : {}) };
  if (!Object.hasOwn(keys, key)) return;
  event.preventDefault();
  keys[key]();
}

restoreReview();
startReview();
startOverview();
byId("help-open").addEventListener("click", openHelp);
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
window.addEventListener("pagehide", leaveNote);
route();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
