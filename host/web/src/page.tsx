// What all demo pages share: starting, the state of a connection, signal flags, notices, and words for times. Owns no protocol.

import { render, type ComponentChildren, type VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** Shows the page: the script is there, so the notice that it is missing goes. */
export function start(page: VNode): void {
  document.getElementById('unbuilt')?.remove();
  const app = document.getElementById('app');
  if (app) render(page, app);
}

/** The address of a WebSocket path on the host that served the page. */
export function socketUrl(path: string): string {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  return url.href;
}

/** Draws again whenever what it shows says that it changed. */
export function useChanges(subscribe: (changed: () => void) => () => void, on: unknown): void {
  const [, count] = useState(0);
  useEffect(() => subscribe(() => count((times) => times + 1)), [on]);
}

/** Draws again every so often, for what depends on the time. */
export function useTick(interval_ms: number): void {
  const [, count] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => count((times) => times + 1), interval_ms);
    return () => clearInterval(timer);
  }, [interval_ms]);
}

/** The part of the address behind `#`, which may change. */
export function useHash(): string {
  const read = () => {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return '';
    }
  };
  const [hash, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return hash;
}

/** What the broker takes as a part of a channel's name. */
export const isName = (text: string): boolean => /^[A-Za-z0-9._@|+~-]{1,64}$/.test(text) && !/^\.+$/.test(text);

/** How a connection is, in a word beside a dot. `data-state` tells it to the style, and to tests. */
export function State({ id, state, children, title }: { id: string; state: string; children: ComponentChildren; title?: string | null }) {
  return <p class="state" id={id} data-state={state} role="status" title={title ?? undefined}>{children}</p>;
}

/** One choice of a few, all in sight. */
export function Choice<T extends string>({ name, label, value, options, onChoose }: { name: string; label: string; value: T; options: readonly { value: T; label: string; title?: string }[]; onChoose: (value: T) => void }) {
  return (
    <fieldset class="choice">
      <legend class="hush">{label}</legend>
      {options.map((option) => (
        <label key={option.value} title={option.title}>
          <input type="radio" name={name} value={option.value} checked={option.value === value} onChange={() => onChoose(option.value)} />
          <span>{option.label}</span>
        </label>
      ))}
    </fieldset>
  );
}

const ICONS = {
  x: 'M5.500 5.500l9 9M14.500 5.500l-9 9',
  left: 'M11.500 5.500L7 10l4.500 4.500',
  right: 'M8.500 5.500L13 10l-4.500 4.500',
  plus: 'M10 4.500v11M4.500 10h11',
  bin: 'M4 6h12M8 6V4h4v2M5.500 6l.750 10h7.500l.750-10M8.500 9v4M11.500 9v4',
  wide: 'M3 10h14M6 7l-3 3 3 3M14 7l3 3-3 3',
  send: 'M10 16V4M5 9l5-5 5 5',
  grip: 'M7.500 5v.010M12.500 5v.010M7.500 10v.010M12.500 10v.010M7.500 15v.010M12.500 15v.010',
  again: 'M15.500 10a5.500 5.500 0 1 1-1.600-3.900M15.500 3.500v3.200h-3.200',
};

export function Icon({ name, size = 20 }: { name: keyof typeof ICONS; size?: number }) {
  return <svg class="drawn" width={size} height={size} viewBox="0 0 20 20" aria-hidden="true"><path d={ICONS[name]} /></svg>;
}

/** A number that stays the same for a name. */
export function hash(name: string): number {
  let value = 0x811c9dc5;
  for (const c of name) value = Math.imul(value ^ (c.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  return (value ^ (value >>> 15)) >>> 0;
}

const DESIGNS = [
  'M0 0h12v24H0z', 'M0 12h24v12H0z', 'M8 0h8v24H8z', 'M9 0h6v9h9v6h-9v9H9v-9H0V9h9z', 'M0 0h5l7 7 7-7h5v5l-7 7 7 7v5h-5l-7-7-7 7H0v-5l7-7-7-7z',
  'M7 7h10v10H7z', 'M12 5a7 7 0 1 1 0 14 7 7 0 0 1 0-14z', 'M0 0h12v24h12V12H0z', 'M0 0h24L0 24z', 'M12 2l10 10-10 10L2 12z', 'M0 8h24v8H0z', 'M0 0l24 12L0 24z',
];

/** Everyone sails under a signal flag of their own, drawn from the name; the same as in the chat. */
export function Flag({ name, size = 24 }: { name: string; size?: number }) {
  const value = hash(name);
  const pair = [['#24485f', '#d65a3c', '#2f8b83', '#7b4a66'][value % 4], ['#f2cd7e', '#f6f1e6'][(value >>> 2) % 2]];
  if ((value >>> 3) % 2) pair.reverse();
  return (
    <svg class="flag" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d="M0 0h24v24H0z" fill={pair[0]} />
      <path d={DESIGNS[(value >>> 8) % DESIGNS.length]} fill={pair[1]} />
    </svg>
  );
}

/** Texts that go by themselves after a while. */
export class Notices {
  texts: string[] = [];
  private readonly listeners = new Set<() => void>();

  add(text: string): void {
    if (this.texts.includes(text)) return;
    this.texts = [...this.texts.slice(-2), text];
    setTimeout(() => this.remove(text), 9000);
    this.changed();
  }

  remove(text: string): void {
    this.texts = this.texts.filter((other) => other !== text);
    this.changed();
  }

  listen = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}

export function NoticeList({ notices }: { notices: Notices }) {
  useChanges(notices.listen, notices);
  return (
    <div id="notices" role="alert">
      {notices.texts.map((text) => (
        <div class="notice" key={text}>
          <p>{text}</p>
          <button class="icon" type="button" aria-label="Dismiss" onClick={() => notices.remove(text)}><Icon name="x" size={16} /></button>
        </div>
      ))}
    </div>
  );
}

const clock = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const full = new Intl.DateTimeFormat([], { dateStyle: 'medium', timeStyle: 'medium' });

export function Time({ at_ms }: { at_ms: number }) {
  if (!Number.isFinite(at_ms)) return <time>–</time>;
  return <time dateTime={new Date(at_ms).toISOString()} title={full.format(at_ms)}>{clock.format(at_ms)}</time>;
}

/** Seconds until then, for a countdown. */
export const secondsTo = (at_ms: number): number => Math.max(0, Math.ceil((at_ms - Date.now()) / 1000));

export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`;
