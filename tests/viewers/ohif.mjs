// Opens DICOM reports in OHIF, as a person does, and prints what the viewer then holds and draws.
//
// stdin:  {playwright, chromium, flags, url, study, shots, seconds, displaySets: [{name, series, drawingSeconds}]}
// stdout: {views: [{name, opened, state, steps, pictures, toasts, console, milliseconds}]}
//
// Positions are patient coordinates in mm. Everything is waited for by polling; no step waits for a fixed time.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const task = JSON.parse(readFileSync(0, 'utf8'));
const { chromium } = createRequire(import.meta.url)(task.playwright);
const timeout = task.seconds * 1000;
const WAIT_BEFORE_SCROLLING = 10;
const SCROLL_SECONDS = 5;

/** What OHIF holds of one display set: its measurements, and the annotations of the whole page. */
const readState = series => {
  const { displaySetService } = window.services;
  const set = displaySetService.getActiveDisplaySets().find(item => item.SeriesInstanceUID === series);
  const shapes = annotation => {
    const { renderableData, handles } = annotation.data;
    if (!renderableData) return [(handles?.points ?? []).map(point => Array.from(point))];
    return Object.values(renderableData).flat().map(shape => shape.map(point => Array.from(point)));
  };
  return {
    modality: set.Modality,
    description: set.SeriesDescription,
    isLoaded: set.isLoaded,
    images: set.numImageFrames,
    measurements: (set.measurements ?? []).map(item => ({
      loaded: item.loaded,
      sop: item.ReferencedSOPInstanceUID ?? null,
      labels: item.labels ?? [],
    })),
    annotations: window.cornerstoneTools.annotation.state
      .getAllAnnotations()
      .filter(item => item.metadata.toolName !== 'ReferenceLines')
      .map(item => ({
        tool: item.metadata.toolName,
        sop: item.metadata.referencedImageId?.match(/instances\/([\d.]+)/)?.[1] ?? null,
        labels: item.data.labels ?? [],
        shapes: shapes(item),
      })),
  };
};

/** What is on the screen: of each viewport its series and image, and the shapes and texts of its SVG layer. */
const readScreen = () => {
  const numbers = text => (text ?? '').match(/-?\d+(\.\d+)?(e-?\d+)?/g)?.map(Number) ?? [];
  const pairs = values => values.flatMap((value, index) => (index % 2 ? [] : [[value, values[index + 1]]]));
  const outline = {
    line: item => pairs(['x1', 'y1', 'x2', 'y2'].map(name => Number(item.getAttribute(name)))),
    polyline: item => pairs(numbers(item.getAttribute('points'))),
    path: item => pairs(numbers(item.getAttribute('d'))),
    circle: item => pairs(['cx', 'cy'].map(name => Number(item.getAttribute(name)))),
  };
  return window.cornerstone.getEnabledElements().map(({ viewport }) => {
    const layer = viewport.element.querySelector('svg.svg-layer');
    const imageId = viewport.getCurrentImageId?.() ?? '';
    return {
      id: viewport.id,
      series: imageId.match(/series\/([\d.]+)/)?.[1] ?? null,
      sop: imageId.match(/instances\/([\d.]+)/)?.[1] ?? null,
      shapes: [...(layer?.querySelectorAll(Object.keys(outline).join()) ?? [])].map(item => ({
        kind: item.tagName,
        points: outline[item.tagName](item).map(point => Array.from(viewport.canvasToWorld(point))),
      })),
      texts: [...(layer?.querySelectorAll('text') ?? [])].map(text =>
        [...text.querySelectorAll('tspan')].map(span => span.textContent)
      ),
    };
  });
};

/** Of each viewport the series, and which shares of its pixels are bright and coloured. */
const readPixels = () => window.cornerstone.getEnabledElements().map(({ viewport }) => {
  const { data } = viewport.canvas.getContext('2d').getImageData(0, 0, viewport.canvas.width, viewport.canvas.height);
  let bright = 0, coloured = 0;
  for (let index = 0; index < data.length; index += 4) {
    const [red, green, blue] = data.subarray(index, index + 3);
    const highest = Math.max(red, green, blue);
    bright += highest > 60;
    coloured += highest > 120 && highest - Math.min(red, green, blue) > highest / 2;
  }
  const series = (viewport.getCurrentImageId?.() ?? '').match(/series\/([\d.]+)/)?.[1] ?? null;
  return { series, bright: (4 * bright) / data.length, coloured: (4 * coloured) / data.length };
});

/** Which image the first viewport shows. */
const readImage = () => window.cornerstone.getEnabledElements()[0]?.viewport.getCurrentImageId?.() ?? null;

/** Return what `read` gives once `accept` holds and three readings in a row agree, or the last reading. */
const settled = async (page, read, accept, seconds) => {
  const end = Date.now() + seconds * 1000;
  let last = '', value, same = 0;
  while (Date.now() < end) {
    value = await page.evaluate(read);
    const text = JSON.stringify(value);
    same = text === last ? same + 1 : 0;
    last = text;
    if (same >= 2 && accept(value)) return { value, settled: true };
    await page.waitForTimeout(60);
  }
  return { value, settled: false };
};

/**
 * Wait until a measurement is drawn; where nothing appears, scroll to the next image and back, as a person does.
 * OHIF 3.12 does not draw a measurement of the image that it shows already, until it shows that image anew.
 */
const drawnOrScrolledTo = async (page, accept, seconds) => {
  const atOnce = await settled(page, readScreen, accept, Math.min(seconds, WAIT_BEFORE_SCROLLING));
  if (atOnce.settled) return { ...atOnce, scrolled: false };
  const { width, height } = page.viewportSize();
  await page.mouse.move(width / 2, height / 2);
  for (const direction of [1, -1]) {
    const before = await page.evaluate(readImage);
    await page.mouse.wheel(0, 100 * direction);
    await settled(page, readImage, now => now !== before, SCROLL_SECONDS);
  }
  return { ...(await settled(page, readScreen, accept, seconds)), scrolled: true };
};

/** The arrow to the next measurement; OHIF 3.12 has no name for it, only its picture, turned around. */
const NEXT = '[data-cy="viewport-action-arrows-right"], [data-cy="viewport-grid"] svg.rotate-180:has(title)';

const open = async (page, wanted) => {
  const series = wanted.series;
  await page.goto(`${task.url}/viewer?StudyInstanceUIDs=${task.study}`, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(
    uid => window.services?.displaySetService?.getActiveDisplaySets().some(set => set.SeriesInstanceUID === uid),
    series, { timeout }
  );
  await page.waitForFunction(
    () => window.cornerstone?.getEnabledElements().some(({ viewport }) => viewport.getCurrentImageId?.()),
    null, { timeout }
  );
  const { uid, description, modality } = await page.evaluate(series => {
    const sets = window.services.displaySetService.getActiveDisplaySets();
    const set = sets.find(item => item.SeriesInstanceUID === series);
    return { uid: set.displaySetInstanceUID, description: set.SeriesDescription, modality: set.Modality };
  }, series);
  const thumbnail = page
    .locator('[data-cy="study-browser-thumbnail-no-image"], [data-cy="study-browser-thumbnail"]')
    .filter({ hasText: description }).first();
  await thumbnail.dblclick({ timeout });
  await page.waitForFunction(
    uid => [...window.services.viewportGridService.getState().viewports.values()]
      .some(viewport => viewport.displaySetInstanceUIDs.includes(uid)),
    uid, { timeout }
  );
  const steps = [];
  const pictures = [];
  const shoot = async () => {
    pictures.push(`${task.shots}/${wanted.name}-${steps.length}.png`);
    await page.screenshot({ path: pictures.at(-1) });
  };
  if (modality !== 'SR') {
    const shown = screen => screen.some(viewport => viewport.series === series && viewport.bright);
    steps.push(await settled(page, readPixels, shown, wanted.drawingSeconds));
    await shoot();
    return { state: await page.evaluate(readState, series), steps, pictures };
  }
  await page.waitForFunction(
    series => window.services.displaySetService.getActiveDisplaySets()
      .find(item => item.SeriesInstanceUID === series).isLoaded,
    series, { timeout }
  );
  const { measurements } = await page.evaluate(readState, series);
  for (const [index, measurement] of measurements.entries()) {
    if (index) await page.locator(NEXT).first().click({ timeout });
    // The layer keeps the last image's texts until it is drawn anew.
    const title = measurement.labels[0]?.label ?? '';
    const drawn = screen => screen.some(
      viewport => viewport.sop === measurement.sop && viewport.texts.some(lines => lines[0]?.startsWith(title))
    );
    steps.push(await drawnOrScrolledTo(page, drawn, wanted.drawingSeconds));
    await shoot();
    if (!steps.at(-1).settled) break;
  }
  return { state: await page.evaluate(readState, series), steps, pictures };
};

const browser = await chromium.launch({ executablePath: task.chromium, headless: true, args: task.flags });
const views = [];
// One context: the pages share a cache of OHIF's files, and nothing else that is shown.
const context = await browser.newContext({ viewport: { width: 1600, height: 900 } });
await context.addInitScript(() => localStorage.setItem('shownTours', '["basicViewerTour"]'));
for (const wanted of task.displaySets) {
  const page = await context.newPage();
  const view = { name: wanted.name, opened: '', console: [], toasts: [] };
  page.on('console', message => {
    if (message.type() === 'error') view.console.push(`${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', error => view.console.push(`uncaught: ${error.message}`));
  page.on('request', request => {
    if (!request.url().startsWith(task.url) && /^https?:/.test(request.url())) view.console.push(`asks ${request.url()}`);
  });
  const started = Date.now();
  try {
    Object.assign(view, await open(page, wanted));
  } catch (error) {
    view.opened = String(error).slice(0, 500);
    await page.screenshot({ path: `${task.shots}/${wanted.name}-failed.png` });
  }
  view.toasts = await page.locator('[data-sonner-toast]').allInnerTexts();
  view.milliseconds = Date.now() - started;
  views.push(view);
  await page.close();
}
await browser.close();
console.log(JSON.stringify({ views }));
