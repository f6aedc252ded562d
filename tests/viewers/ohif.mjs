// Opens DICOM reports in OHIF, as a person does, and prints what the viewer then holds and draws.
//
// stdin:  {playwright, chromium, flags, url, study, shots, seconds, displaySets: [{name, series}]}
// stdout: {console: [text], views: [{name, opened, state, steps, toasts, console}]}
//
// Positions are patient coordinates in mm. Everything is waited for by polling; no step waits for a fixed time.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const task = JSON.parse(readFileSync(0, 'utf8'));
const { chromium } = createRequire(import.meta.url)(task.playwright);
const timeout = task.seconds * 1000;

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
      sop: item.ReferencedSOPInstanceUID ?? item.coords?.[0]?.ReferencedSOPSequence?.ReferencedSOPInstanceUID,
      labels: item.labels,
    })),
    annotations: window.cornerstoneTools.annotation.state
      .getAllAnnotations()
      .filter(item => item.metadata.toolName !== 'ReferenceLines')
      .map(item => ({
        tool: item.metadata.toolName,
        sop: item.metadata.referencedImageId?.match(/instances\/([\d.]+)/)?.[1] ?? null,
        labels: item.data.labels ?? item.data.label,
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

/** Return what `read` gives once `accept` holds and three readings in a row agree, or the last reading. */
const settled = async (page, read, accept) => {
  const end = Date.now() + timeout;
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
  const shoot = () => page.screenshot({ path: `${task.shots}/${wanted.name}-${steps.length}.png` });
  if (modality !== 'SR') {
    const shown = screen => screen.some(viewport => viewport.series === series);
    steps.push(await settled(page, readScreen, shown));
    await shoot();
    return { state: await page.evaluate(readState, series), steps };
  }
  await page.waitForFunction(
    series => window.services.displaySetService.getActiveDisplaySets()
      .find(item => item.SeriesInstanceUID === series).isLoaded,
    series, { timeout }
  );
  const { measurements } = await page.evaluate(readState, series);
  for (const [index, measurement] of measurements.entries()) {
    if (index) await page.locator('[data-cy="viewport-action-arrows-right"]').first().click({ timeout });
    const drawn = screen => screen.some(
      viewport => viewport.sop === measurement.sop && viewport.shapes.length && viewport.texts.length
    );
    steps.push(await settled(page, readScreen, drawn));
    await shoot();
  }
  if (!measurements.length) await shoot();
  return { state: await page.evaluate(readState, series), steps };
};

const browser = await chromium.launch({ executablePath: task.chromium, headless: true, args: task.flags });
const views = [];
for (const wanted of task.displaySets) {
  const context = await browser.newContext({ viewport: { width: 1600, height: 900 } });
  await context.addInitScript(() => localStorage.setItem('shownTours', '["basicViewerTour"]'));
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
  await context.close();
}
await browser.close();
console.log(JSON.stringify({ views }));
