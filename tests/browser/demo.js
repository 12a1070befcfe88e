// A demo page in the browser: its faults are collected, and pictures of it kept.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const pictures = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../target/browser');
const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: QUIET });

/** Errors of a page and breaches of its Content-Security-Policy. */
export function collectFaults(page, faults) {
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('dialog', (dialog) => { faults.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('console', (message) => {
    if (/Content.Security.Policy/i.test(message.text())) faults.push(message.text());
  });
}

/** Keeps a picture in target/browser, with everything that fades or moves in at its end. */
export async function keepPicture(page, name) {
  await mkdir(pictures, { recursive: true });
  await page.screenshot({ path: path.join(pictures, `${name}.png`), animations: 'disabled' });
}

/** Opens a demo page, such as `metrics#ann`. */
export async function open(browser, broker, name, options = {}) {
  const faults = [];
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-GB', ...options });
  const page = await context.newPage();
  collectFaults(page, faults);
  await page.goto(`${broker.url}/demo/${name}`);
  return { page, faults, context, picture: (file) => keepPicture(page, file) };
}

/** Waits until an element has this value of an attribute. */
export const has = (page, selector, attribute, value) => page.locator(`${selector}[${attribute}="${value}"]`).first().waitFor({ state: 'attached' });

/** Whether the page is wider than its window: then it has to be pushed about on a phone. */
export const overflows = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth + 1);
