// A broker process of the example configuration, on a free port and a data folder of its own.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { link, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const program = process.env.HOTBAY_BIN ?? path.join(root, 'target/debug/hotbay');
const START_MS_MAX = 60_000;
// The tests write faster than people may.
const RATE = 'mount.community.limits.rate_per_connection';
const FAST = ['--set', `${RATE}.per_second=10000`, '--set', `${RATE}.burst=10000`];

/**
 * A folder of compiled plugins and of what vetting found out about them, which tests share: it takes long. Its key is made here and is there
 * whole or not at all, since several brokers that start at once would each make one.
 */
async function compiled() {
  const folder = path.join(root, 'target/tmp/compiled-plugins');
  await mkdir(folder, { recursive: true });
  const own = path.join(folder, `key-${process.pid}`);
  await writeFile(own, randomBytes(64), { mode: 0o600 });
  await link(own, path.join(folder, 'key')).catch((error) => { if (error.code !== 'EEXIST') throw error; });
  await rm(own);
  return folder;
}

export class Broker {
  #data;
  #process = null;
  #listen = '127.0.0.1:0';
  #log = '';
  #flags = [];

  /** The broker's address, `http://127.0.0.1:PORT`; the same after a restart. */
  url = null;

  /** Starts one with an empty data folder, and with more flags. */
  static async start(...more) {
    const broker = new Broker();
    broker.#flags = more;
    broker.#data = await mkdtemp(path.join(tmpdir(), 'hotbay-browser-'));
    await symlink(await compiled(), path.join(broker.#data, 'artifacts'));
    await broker.start();
    return broker;
  }

  /** Starts the process and waits until it listens; after `kill` with the same data on the same port. */
  async start() {
    const flags = ['--config', 'examples/hotbay.toml', '--data-dir', this.#data, '--listen', this.#listen, ...FAST, ...this.#flags];
    const child = spawn(program, ['serve', ...flags], { cwd: root, env: { PATH: process.env.PATH }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    child.stderr.on('data', (data) => { this.#log += data; });
    const failed = new Promise((_, reject) => {
      child.once('error', (error) => reject(new Error(`${program} cannot be run (${error.message}): build it with \`cargo build\``)));
      child.once('exit', (code) => reject(new Error(`the broker ended with code ${code}\n${this.#log}`)));
      setTimeout(() => reject(new Error(`the broker did not start in time\n${this.#log}`)), START_MS_MAX).unref();
    });
    const listens = new Promise((resolve) => {
      createInterface(child.stdout).on('line', (line) => {
        const found = line.match(/listening on (http:\/\/(\S+))/);
        if (found) resolve(found);
      });
    });
    failed.catch(() => {});
    [, this.url, this.#listen] = await Promise.race([listens, failed]);
  }

  /** Makes an API key of the tenant `default`. */
  async apiKey(name) {
    const flags = ['--config', 'examples/hotbay.toml', '--data-dir', this.#data, '--name', name];
    const { stdout } = await promisify(execFile)(program, ['key', 'create', ...flags], { cwd: root, env: { PATH: process.env.PATH } });
    return stdout.trim();
  }

  /** `kill -9`. */
  async kill() {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** Ends the process and removes its data. */
  async remove() {
    await this.kill();
    await rm(this.#data, { recursive: true, force: true });
  }
}
