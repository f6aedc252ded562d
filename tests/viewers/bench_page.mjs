// Opens the page of a benchmark record in Chromium, and prints what a reader sees of it.
//
// stdin:  {playwright, axe, chromium, flags, page, scenario, folder, dark, width}
// stdout: {result, messages, requests}: what the scenario saw; the console's errors; requests of anything but the
//         page itself.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const task = JSON.parse(readFileSync(0, 'utf8'));
const require = createRequire(import.meta.url);
const { chromium } = require(task.playwright);
const address = pathToFileURL(task.page).href;

const tip = page => page.$eval('.tip', item => item.hidden ? '' : item.textContent);

const scenarios = {
  async look(page) {
    const name = `bench-${task.dark ? 'dark' : 'light'}-${task.width}.png`;
    await page.screenshot({ path: join(task.folder, name), fullPage: true });
    return page.evaluate(() => ({
      content: document.documentElement.scrollWidth,
      window: document.documentElement.clientWidth,
      background: getComputedStyle(document.documentElement).backgroundColor,
      charts: [...document.querySelectorAll('.plot')].map(plot =>
        [...plot.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width).length),
      // Text that leaves its picture is cut off, or covers what is beside it.
      outside: [...document.querySelectorAll('.plot svg')].filter(svg => svg.getBoundingClientRect().width).flatMap(svg => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].filter(text => {
          const box = text.getBoundingClientRect();
          return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
        }).map(text => text.textContent);
      }),
      smallest: Math.min(...[...document.querySelectorAll('.plot svg text')].filter(text => text.getBoundingClientRect().width)
        .map(text => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width)),
    }));
  },

  async keyboard(page) {
    const plot = page.locator('.bars .plot').first();
    await plot.focus();
    const seen = { before: await tip(page) };
    await page.keyboard.press('ArrowRight');
    seen.first = await tip(page);
    await page.keyboard.press('ArrowRight');
    seen.second = await tip(page);
    await page.keyboard.press('End');
    seen.last = await tip(page);
    await page.keyboard.press('ArrowRight');
    seen.stays = await tip(page);
    seen.visible = await page.$eval('.tip', item => {
      const box = item.getBoundingClientRect();
      return box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
    });
    await page.keyboard.press('Escape');
    seen.escaped = await tip(page);
    return seen;
  },

  async pointer(page) {
    const bar = page.locator('.bars svg:visible .p').first();
    await bar.scrollIntoViewIfNeeded();
    // A tip is hidden when the page scrolls: wait until it has.
    await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))));
    const box = await bar.boundingBox();
    await page.mouse.move(box.x + 5, box.y + 5);
    const seen = { over: await tip(page) };
    await page.mouse.move(1, 1);
    seen.away = await tip(page);
    return seen;
  },

  async data(page) {
    const figure = page.locator('figure.cdf').first();
    await figure.locator('summary').click();
    return { heads: await figure.locator('th').allTextContents(), rows: await figure.locator('tbody tr').count() };
  },

  async axe(page) {
    await page.addScriptTag({ path: join(task.axe, 'axe.min.js') });
    await page.evaluate(() => document.querySelectorAll('details').forEach(item => { item.open = true; }));
    const found = await page.evaluate(() => window.axe.run());
    return found.violations.map(item => [item.id, item.nodes.map(node => node.html.slice(0, 200))]);
  },
};

const browser = await chromium.launch({ executablePath: task.chromium, args: task.flags });
const context = await browser.newContext({
  viewport: { width: task.width, height: 900 }, colorScheme: task.dark ? 'dark' : 'light',
  // For axe alone: the page's own policy would block the script that is added.
  bypassCSP: task.scenario === 'axe',
});
const page = await context.newPage();
const messages = [];
const requests = [];
page.on('console', message => { if (['error', 'warning'].includes(message.type())) messages.push(message.text()); });
page.on('pageerror', error => messages.push(String(error)));
page.on('request', request => { if (request.url().split('#')[0] !== address) requests.push(request.url()); });
try {
  await page.goto(address);
  const result = await scenarios[task.scenario](page);
  process.stdout.write(JSON.stringify({ result, messages, requests }));
} finally {
  await browser.close();
}
