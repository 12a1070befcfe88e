// Somebody who uses the chat page: what a person sees and does there, by roles and labels.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const pictures = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../target/browser');

export class Visitor {
  /** Errors of the page and breaches of its Content-Security-Policy. */
  faults = [];

  /** Opens the page and enters under a name. */
  static async enter(browser, broker, name, options = {}) {
    const visitor = new Visitor();
    visitor.name = name;
    visitor.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
    visitor.page = await visitor.context.newPage();
    visitor.page.on('pageerror', (error) => visitor.faults.push(String(error)));
    visitor.page.on('dialog', (dialog) => { visitor.faults.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
    visitor.page.on('console', (message) => {
      if (/Content.Security.Policy/i.test(message.text())) visitor.faults.push(message.text());
    });
    await visitor.page.goto(`${broker.url}/demo/chat`);
    await visitor.page.getByLabel('Your name').fill(name);
    await visitor.page.getByRole('button', { name: 'Enter', exact: true }).click();
    await visitor.isIn();
    return visitor;
  }

  /** The room is open: somebody is here, at least oneself. */
  isIn() {
    return this.sees(/^(Only you are|\d+ people) here$/);
  }

  /** Waits until a text can be seen. */
  sees(text) {
    return this.page.getByText(text, { exact: true }).first().waitFor();
  }

  /** Messages with this text. */
  messages(text) {
    return this.page.locator('.msg', { has: this.page.locator('.text').getByText(text) });
  }

  /** Waits until a message can be seen, and for good: no longer on its way. */
  async reads(text) {
    await this.messages(text).and(this.page.locator(':not(.waiting)')).first().waitFor();
  }

  /** Waits until a message is gone. */
  async misses(text) {
    await this.messages(text).first().waitFor({ state: 'detached' });
  }

  get field() {
    return this.page.getByRole('textbox', { name: /^Message to/ });
  }

  /** Writes a message, without waiting for its confirmation. */
  async writes(text) {
    await this.field.fill(text);
    await this.field.press('Enter');
  }

  /** Writes a message and waits until it is confirmed. */
  async says(text) {
    await this.writes(text);
    await this.reads(text);
  }

  /** Presses a button of a message. */
  async presses(button, text) {
    const message = this.messages(text);
    await message.hover();
    await message.getByRole('button', { name: new RegExp(`^${button} `) }).click();
  }

  /** Opens or creates a room. */
  async opens(room) {
    const field = this.page.getByLabel('Open or create a room');
    await field.fill(room);
    await field.press('Enter');
    await this.page.getByRole('heading', { name: room, exact: true }).waitFor();
    await this.isIn();
  }

  /** Keeps a picture in target/browser. */
  async pictures(name) {
    await mkdir(pictures, { recursive: true });
    await this.page.screenshot({ path: path.join(pictures, `${name}.png`) });
  }

  async leaves() {
    await this.context.close();
  }
}
