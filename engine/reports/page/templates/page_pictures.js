// Pictures with their overlay. Coordinates are millimetres from the upper left corner of a picture.

const THUMB_MM = 34;

/** Make the sagittal picture that shows a level, or a sentence that says why there is none. */
function sagittalFigure(level) {
  const { study } = level;
  const names = [...new Set(study.levels.map((other) => other.sagittal?.picture).filter(Boolean))];
  const place = level.sagittal || study.levels.find((other) => other.sagittal)?.sagittal;
  if (!place) return noPicture("sagittal", study.no_pictures || "No level has a sagittal picture.");
  const picture = picturesOf(study)[place.picture];
  const svg = framed(picture, `Sagittal slice with the disc levels of study ${study.number}`, 20);
  const overlay = draw("g", { class: "overlay" });
  if (level.sagittal?.slice) overlay.append(line(...level.sagittal.slice, "slice"));
  for (const other of study.levels) {
    if (other.sagittal?.picture === place.picture) overlay.append(levelMark(other, other === level));
  }
  svg.append(overlay);
  const notes = [names.length > 1 ? `Slice ${names.indexOf(place.picture) + 1} of ${names.length} that levels were graded on.` : "Sagittal T2."];
  if (!level.sagittal) notes.push(`${level.level} has no place on it.`);
  else if (level.sagittal.slice) notes.push("Dashed: the axial slice.");
  return make("figure", { class: "picture sagittal" }, svg, make("figcaption", { text: notes.join(" ") }));
}

function levelMark(level, selected) {
  const [x, y] = level.sagittal.point;
  const shown = isShown(level);
  const grade = shown ? readerGrade(level) ?? level.grade : null;
  const [width, height] = [20.4, 5.8];
  // In front of the column, where the picture shows least.
  const left = Math.max(7, x - 42);
  const mark = draw("g", {
    class: `mark ${shown ? gradeClass(grade) : "secret"}${selected ? " selected" : ""}`,
    on: { click: () => select(level) },
  });
  mark.append(
    draw("title", { text: `${level.level}: ${shown ? gradeWords(level) : "hidden until reviewed"}` }),
    draw("line", { x1: left + width, y1: y, x2: x - 2, y2: y, class: "leader" }),
    draw("circle", { cx: x, cy: y, r: selected ? 1.9 : 1.3, class: "spot" }),
    draw("rect", { x: left, y: y - height / 2, width, height, rx: 1, class: "plate" }),
    draw("text", { x: left + 1.3, y: y + 1.4, class: "name", text: level.level }),
    draw("rect", { x: left + width - 5, y: y - height / 2, width: 5, height, rx: 1, class: "grade" }),
    draw("text", { x: left + width - 2.5, y: y + 1.4, class: "digit", "text-anchor": "middle", text: shown ? grade ?? "–" : "?" }),
  );
  // Its hit area reaches beyond the small letters.
  mark.append(draw("rect", { x: left - 1, y: y - 5, width: x - left + 4, height: 10, class: "hit" }));
  return mark;
}

/** Make the axial picture of a level with the cord's diameters, or say why there is none. */
function axialFigure(level) {
  const { study } = level;
  if (!level.axial) {
    const reasons = level.ratio === null ? level.flags.map((flag) => study.meanings[flag]).filter(Boolean) : [];
    const why = study.no_pictures || (reasons.length ? `Not measured at ${level.level}: ${reasons.join("; ")}.` : `No axial picture at ${level.level}.`);
    return noPicture("axial", why);
  }
  const picture = picturesOf(study)[level.axial.picture];
  const svg = framed(picture, `Axial slice at ${level.level} with the diameters of the cord`, 10);
  const [front, back, left, right] = level.axial.points;
  const overlay = draw("g", { class: "overlay" });
  if (isShown(level)) {
    overlay.append(line(front, back, "ap"), line(left, right, "transverse"));
    for (const [x, y] of [front, back]) overlay.append(draw("circle", { cx: x, cy: y, r: 0.55, class: "end ap" }));
    for (const [x, y] of [left, right]) overlay.append(draw("circle", { cx: x, cy: y, r: 0.55, class: "end transverse" }));
    const upper = front[1] < back[1] ? front : back;
    const outer = left[0] > right[0] ? left : right;
    overlay.append(
      draw("text", { x: upper[0], y: upper[1] - 1.5, "text-anchor": "middle", class: "length ap", text: "AP" }),
      draw("text", { x: outer[0] + 1.4, y: outer[1] + 0.8, class: "length transverse", text: "T" }),
    );
  }
  svg.append(overlay);
  const words = isShown(level)
    ? [make("b", { class: "key ap", text: "AP" }), ` ${number(level.ap, 1)} mm  `, make("b", { class: "key transverse", text: "T" }), ` ${number(level.transverse, 1)} mm  `, make("span", { text: `ratio ${number(level.ratio)}` })]
    : ["Diameters are hidden until you decide."];
  return make("figure", { class: "picture axial" }, svg, make("figcaption", {}, `${level.level}, axial T2. `, ...words));
}

/** Make small axial pictures of all levels, to compare and to choose from; null where there are none. */
function axialStrip(study, selected) {
  if (!study.levels.some((level) => level.axial)) return null;
  const thumbs = study.levels.map((level) => {
    const shown = isShown(level);
    const head = make("span", { class: "name" }, level.level, " ", shown ? chip(readerGrade(level) ?? level.grade) : chip(null));
    return make("li", {}, make("button", {
      type: "button", id: `thumb-${level.place}`, "aria-current": level === selected ? "true" : null, on: { click: () => select(level) },
    }, make("span", { class: "hidden", text: "Axial slice of " }), head, level.axial ? thumb(level, shown) : make("span", { class: "without", text: "no slice" })));
  });
  return make("ul", { class: "thumbs", "aria-label": "Axial slices of all levels" }, thumbs);
}

function thumb(level, shown) {
  const { points, picture: name } = level.axial;
  const picture = picturesOf(level.study)[name];
  const [x, y] = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const half = Math.min(THUMB_MM, picture.width, picture.height) / 2;
  const svg = draw("svg", { viewBox: `${x - half} ${y - half} ${2 * half} ${2 * half}`, "aria-hidden": "true" },
    draw("image", { href: picture.src, x: 0, y: 0, width: picture.width, height: picture.height, preserveAspectRatio: "none" }));
  if (shown) svg.append(draw("g", { class: "overlay" }, line(points[0], points[1], "ap"), line(points[2], points[3], "transverse")));
  return svg;
}

function noPicture(kind, why) {
  return make("figure", { class: `picture ${kind} empty` }, make("p", { text: why }));
}

/** Make a picture with its scale bar and orientation letters. */
function framed(picture, words, barMm) {
  const { width, height, letters } = picture;
  const size = height * 0.027;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  svg.append(draw("image", { href: picture.src, x: 0, y: 0, width, height, preserveAspectRatio: "none" }));
  const letter = (text, x, y, anchor) => draw("text", { x, y, "text-anchor": anchor, "font-size": size, class: "letter", text });
  const [left, right, top, bottom] = letters;
  const foot = height - size * 0.7;
  svg.append(
    letter(left, size * 0.5, height / 2, "start"), letter(right, width - size * 0.5, height / 2, "end"),
    letter(top, width / 2, size * 1.2, "middle"), letter(bottom, width / 2, foot, "middle"),
    draw("path", { d: `M${size * 0.7} ${foot - size * 0.3}v${size * 0.3}h${barMm}v${-size * 0.3}`, class: "bar" }),
    letter(`${barMm} mm`, size * 0.7 + barMm / 2, foot - size * 0.55, "middle"),
  );
  return svg;
}

function line([x1, y1], [x2, y2], kind) {
  return draw("line", { x1, y1, x2, y2, class: kind });
}
