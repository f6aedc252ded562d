// Plots of the levels that the filters left, as SVG.

const DOTS_AT_MOST = 1200;
// Without a z-score, how far the pack's ratios are off those of the norms is not known.
const comparable = studies.some((study) => study.levels.some((level) => level.healthy?.compression_ratio_z != null));

/** Draw both plots. */
function showPlots(levels) {
  const shown = levels.filter(isShown);
  const hidden = levels.length - shown.length;
  byId("plots-note").textContent = `${count(shown.length, "level")} that match${hidden ? `, ${hidden} hidden until reviewed` : ""}`;
  byId("plot-grades").replaceChildren(gradePlot(shown), make("figcaption", { text: "Kang grade by level (number of levels)" }));
  const measured = shown.filter((level) => level.ratio !== null);
  const words = `Compression ratio by level: each dot a level, the bar the median${comparable ? ", shaded the middle 95 % of healthy adults, measured across the cord" : ""}`;
  byId("plot-ratios").replaceChildren(ratioPlot(measured), make("figcaption", { text: words }));
}

function gradePlot(levels) {
  const width = 400;
  const [left, rowHeight, barHeight] = [46, 27, 20];
  const groups = LEVELS.map((name) => levels.filter((level) => level.level === name));
  const most = Math.max(1, ...groups.map((group) => group.length));
  const svg = plot(width, rowHeight * LEVELS.length + 4, groups.map((group, index) =>
    `${LEVELS[index]}: ${[0, 1, 2, 3, null].map((grade) => `${grade ?? "no grade"} ${group.filter((level) => level.grade === grade).length}`).join(", ")}`).join("; "));
  groups.forEach((group, index) => {
    const y = 2 + index * rowHeight;
    svg.append(draw("text", { x: left - 8, y: y + barHeight / 2 + 4, "text-anchor": "end", text: LEVELS[index] }));
    let x = left;
    for (const grade of [0, 1, 2, 3, null]) {
      const amount = group.filter((level) => level.grade === grade).length;
      if (!amount) continue;
      const length = (amount / most) * (width - left - 2);
      svg.append(draw("rect", { x, y, width: Math.max(length - 1, 0.5), height: barHeight, class: `fill ${gradeClass(grade)}` }));
      if (length > 15) {
        svg.append(draw("text", { x: x + length / 2, y: y + barHeight / 2 + 4, "text-anchor": "middle", class: `on ${gradeClass(grade)}`, text: amount }));
      }
      x += length;
    }
  });
  return make("div", {}, svg, legend());
}

function legend() {
  const entries = [0, 1, 2, 3, null].map((grade) =>
    make("li", {}, chip(grade), ` ${grade === null ? "no grade" : GRADE_WORDS[grade]}`));
  return make("ul", { class: "legend" }, entries);
}

function ratioPlot(levels) {
  const width = 400;
  const height = 250;
  const [left, bottom, top] = [34, 22, 8];
  const values = levels.map((level) => level.ratio);
  const low = Math.min(0.3, ...values.map((value) => Math.floor(value * 10) / 10));
  const high = Math.max(0.8, ...values.map((value) => Math.ceil(value * 10) / 10));
  const toY = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const step = (width - left) / LEVELS.length;
  const groups = LEVELS.map((name) => levels.filter((level) => level.level === name));
  const svg = plot(width, height, groups.map((group, index) => group.length
    ? `${LEVELS[index]}: median ${number(median(group.map((level) => level.ratio)))} of ${group.length}` : `${LEVELS[index]}: none`).join("; "));
  for (let tick = Math.round(low * 10); tick <= Math.round(high * 10); tick += 1) {
    const y = toY(tick / 10);
    svg.append(draw("line", { x1: left, x2: width, y1: y, y2: y, class: "grid" }));
    svg.append(draw("text", { x: left - 6, y: y + 4, "text-anchor": "end", text: (tick / 10).toFixed(1) }));
  }
  groups.forEach((group, index) => {
    const middle = left + step * (index + 0.5);
    const band = run.healthy_ratios[LEVELS[index]];
    if (band && comparable) {
      const [from, to] = band.map((value) => Math.min(Math.max(value, low), high));
      svg.append(draw("rect", { x: middle - step * 0.42, width: step * 0.84, y: toY(to), height: toY(from) - toY(to), class: "band" }));
    }
    if (levels.length <= DOTS_AT_MOST) {
      group.forEach((level) => svg.append(draw("circle", {
        cx: middle + step * 0.34 * spread(level), cy: toY(level.ratio), r: 2.6, class: `dot ${gradeClass(level.grade)}`,
      })));
    }
    if (group.length) {
      const y = toY(median(group.map((level) => level.ratio)));
      svg.append(draw("line", { x1: middle - step * 0.36, x2: middle + step * 0.36, y1: y, y2: y, class: "median" }));
    }
    svg.append(draw("text", { x: middle, y: height - 5, "text-anchor": "middle", text: LEVELS[index] }));
  });
  return svg;
}

/** Return a place from -1 to 1 that is the same each time and differs between neighbours. */
function spread(level) {
  return ((level.study.number * 0.6180339887) % 1) * 2 - 1;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function plot(width, height, words) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": words });
}
