// Opens the page of the HTML report, as a reader does, and prints what it then shows.
//
// stdin:  {playwright, axe, chromium, flags, page, scenario, folder, dark, width}
// stdout: {result, messages, requests}: what the scenario saw; the console's errors; requests of anything but the
//         page itself and data in it.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const task = JSON.parse(readFileSync(0, 'utf8'));
const require = createRequire(import.meta.url);
const { chromium } = require(task.playwright);
const address = pathToFileURL(task.page).href;

const numbers = page => page.$$eval('#studies-body tr', rows => rows.map(row => Number(row.querySelector('.c-number').textContent)));
const texts = (page, selector) => page.$$eval(selector, items => items.map(item => item.textContent));
const progress = page => page.textContent('#review-count');
const decided = page => texts(page, '.levels .made');
const ready = page => page.waitForFunction(() => document.documentElement.dataset.ready !== undefined);
const press = async (page, ...keys) => {
  for (const key of keys) await page.keyboard.press(key);
};
const exported = async page => {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#review-export')]);
  const path = join(task.folder, 'review.csv');
  await download.saveAs(path);
  return { name: download.suggestedFilename(), path };
};
const openStudy = (page, number, level = 'C2-3') =>
  page.evaluate(hash => { location.hash = hash; }, `#${number}/${level}`).then(() => page.waitForSelector('#study h2'));

const scenarios = {
  async filter(page) {
    const seen = { all: await numbers(page) };
    await page.click('[data-grade="3"]');
    seen.severe = await numbers(page);
    seen.pressed = await page.getAttribute('[data-grade="3"]', 'aria-pressed');
    seen.pale = await page.$$eval('#studies-body .pale', items => items.map(item => item.textContent));
    seen.plotted = await page.$$eval('#plot-ratios .dot', dots => dots.length);
    await page.click('#filters [type="reset"]');
    await page.waitForFunction(count => document.querySelectorAll('#studies-body tr').length === count, seen.all.length);
    await page.selectOption('#filter-flag', 'axial_slice_gap');
    seen.flagged = await numbers(page);
    await page.selectOption('#filter-flag', '');
    await page.fill('#filter-low', '0.9');
    seen.confident = await numbers(page);
    await page.fill('#filter-high', '0.95');
    seen.ranged = await numbers(page);
    await page.fill('#filter-low', '0');
    await page.fill('#filter-high', '1');
    await page.fill('#filter-text', 'SITE-1 study_0004');
    seen.text = await numbers(page);
    seen.count = await page.textContent('#shown-count');
    return seen;
  },

  async sort(page) {
    const seen = {};
    for (const column of ['number', 'path', 'burden', 'worst', 'ratio', 'confidence', 'flags', 'reviewed']) {
      seen[column] = [];
      for (let turn = 0; turn < 2; turn += 1) {
        await page.focus(`.c-${column} button`);
        await page.keyboard.press('Enter');
        seen[column].push({ order: await page.getAttribute(`th.c-${column}`, 'aria-sort'), rows: await numbers(page) });
      }
    }
    seen.sortedHeads = await page.$$eval('th[aria-sort]', heads => heads.length);
    return seen;
  },

  async review(page) {
    const seen = {};
    await press(page, 'v');
    await openStudy(page, 1);
    await press(page, task.grade, 'r', 'x', 'a');
    seen.afterFour = { progress: await progress(page), decided: await decided(page), level: await page.textContent('.levels tr.selected th') };
    await press(page, 'n');
    await page.keyboard.type('=1+1, "hard to see" j 2');
    await press(page, 'Escape', 'k', 'j', 'J', 'K', 'u', 'a');
    seen.afterNote = { progress: await progress(page), decided: await decided(page), hash: await page.evaluate(() => location.hash) };
    seen.export = await exported(page);
    await page.reload();
    await ready(page);
    seen.reloaded = { progress: await progress(page), decided: await decided(page) };
    seen.stored = await page.evaluate(() => JSON.stringify(localStorage));
    page.once('dialog', dialog => dialog.accept());
    await page.click('#review-clear');
    seen.discarded = await progress(page);
    await page.setInputFiles('#review-file', seen.export.path);
    await page.waitForFunction(() => document.getElementById('status').textContent.includes('imported'));
    seen.imported = { progress: await progress(page), decided: await decided(page), said: await page.textContent('#status') };
    const other = join(task.folder, 'other.csv');
    writeFileSync(other, `\ufeffstudy_uid;level;kang_grade\r\n${task.uid};C2/3;2\r\nunknown;C2/3;1\r\n${task.uid};C3/4;7\r\n`);
    await page.setInputFiles('#review-file', other);
    await page.waitForFunction(() => document.getElementById('status').textContent.includes('left out'));
    seen.other = { decided: await decided(page), said: await page.textContent('#status') };
    writeFileSync(other, 'a,b\n1,2\n');
    await page.setInputFiles('#review-file', other);
    await page.waitForFunction(() => document.getElementById('status').textContent.includes('no review.csv'));
    seen.wrong = await page.textContent('#status');
    return seen;
  },

  async blind(page) {
    await press(page, 'v');
    await page.check('#review-blind');
    await openStudy(page, 1, 'C4-5');
    const shown = async () => ({
      chips: await texts(page, '.levels .chip'), marks: await texts(page, '.mark .digit'), study: await page.textContent('#study'),
    });
    const seen = { before: await shown() };
    await press(page, '1');
    seen.after = await shown();
    await press(page, 'Escape');
    await page.waitForSelector('#overview:not([hidden])');
    seen.strip = await texts(page, '#studies-body tr:first-child .strip .chip');
    seen.worst = await page.textContent('#studies-body tr:first-child .c-worst');
    await page.fill('#filter-text', 'stenosis');
    seen.found = await numbers(page);
    await page.fill('#filter-text', '');
    await page.fill('#filter-low', '0.01');
    seen.confident = await numbers(page);
    return seen;
  },

  async study(page) {
    const seen = {};
    await page.focus('#studies-body a');
    await press(page, 'Enter');
    await page.waitForSelector('#study h2');
    seen.heading = await page.textContent('#study h2');
    seen.images = await page.$$eval('#study .picture image', items => items.map(item => item.getAttribute('href').slice(0, 23)));
    seen.marks = await texts(page, '.mark .name');
    seen.letters = await texts(page, '.sagittal .letter');
    seen.lines = await page.$$eval('.axial .overlay line', items => items.length);
    await press(page, 'o');
    seen.hiddenOverlay = await page.$$eval('.overlay', items => items.every(item => getComputedStyle(item).display === 'none'));
    await press(page, 'o');
    seen.shownOverlay = await page.$$eval('.overlay', items => items.every(item => getComputedStyle(item).display !== 'none'));
    await press(page, 'j', 'j');
    seen.level = await page.textContent('.levels tr.selected th');
    await press(page, 'c');
    await page.waitForFunction(() => document.getElementById('status').textContent !== '');
    seen.said = await page.textContent('#status');
    seen.selected = await page.evaluate(() => getSelection().toString().length > 100);
    await press(page, 'Escape');
    await page.waitForSelector('#overview:not([hidden])');
    seen.focus = await page.evaluate(() => document.activeElement.getAttribute('href'));
    await openStudy(page, 20);
    seen.without = { images: await page.$$eval('#study image', items => items.length), text: await page.textContent('#study') };
    await press(page, '?');
    seen.help = await page.isVisible('#help');
    return seen;
  },

  async axe(page) {
    await page.addScriptTag({ path: join(task.axe, 'axe.min.js') });
    const check = async () => {
      const found = await page.evaluate(() => window.axe.run());
      return found.violations.map(rule => `${rule.id}: ${rule.nodes[0].html.slice(0, 200)} ${rule.nodes[0].failureSummary}`);
    };
    const seen = { overview: await check() };
    await press(page, 'v', '?');
    seen.help = await check();
    await press(page, 'Escape');
    await openStudy(page, 1);
    await press(page, '1', 'k', 'o', 'o');
    seen.study = await check();
    await openStudy(page, 20);
    seen.withoutPictures = await check();
    return seen;
  },

  async fits(page) {
    const widths = () => page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
    const seen = { overview: await widths() };
    await press(page, 'v');
    await openStudy(page, 1);
    seen.study = await widths();
    return seen;
  },

  async speed(page, session) {
    const seen = [];
    for (let turn = 0; turn < 3; turn += 1) {
      await page.goto('about:blank');
      const before = await busy(session);
      await page.goto(address);
      await ready(page);
      const shown = await page.$$eval('#studies-body tr', rows => rows.length);
      await page.fill('#filter-text', 'site-1');
      const rows = (await numbers(page)).length;
      seen.push({ shown, rows, processor: (await busy(session)) - before });
    }
    return seen;
  },
};

/** Seconds that the page's main thread has computed. */
async function busy(session) {
  const { metrics } = await session.send('Performance.getMetrics');
  return metrics.find(metric => metric.name === 'TaskDuration').value;
}

const browser = await chromium.launch({ executablePath: task.chromium, args: task.flags });
// For axe alone: the page's own policy would block the script that is added.
const context = await browser.newContext({
  viewport: { width: task.width ?? 1440, height: 900 }, colorScheme: task.dark ? 'dark' : 'light',
  acceptDownloads: true, bypassCSP: task.scenario === 'axe',
});
const page = await context.newPage();
const messages = [];
const requests = [];
page.on('console', message => { if (['error', 'warning'].includes(message.type())) messages.push(message.text()); });
page.on('pageerror', error => messages.push(String(error)));
page.on('request', request => {
  if (!/^(data|blob|about):/.test(request.url()) && request.url().split('#')[0] !== address) requests.push(request.url());
});
const session = await context.newCDPSession(page);
await session.send('Performance.enable', { timeDomain: 'threadTicks' });
try {
  await page.goto(address);
  await ready(page);
  const result = await scenarios[task.scenario](page, session);
  process.stdout.write(JSON.stringify({ result, messages, requests }));
} finally {
  await browser.close();
}
