// What a close code asks of a client, and how long to wait before coming back. Every client on these pages asks here. Pure but for chance.

/** Come again, come again with a new token, or stay away. */
export type Verdict = 'reconnect' | 'renew' | 'stop';

/** The token has expired. */
const TOKEN_EXPIRED = 4401;
/** The server refuses this client for what it is or does. */
const POLICY = 1008;

/** Codes of the host: 4000–4499 "reconnect", 4500–4999 "do not"; everything else but a breach of policy may pass. */
export function verdict(code: number): Verdict {
  if (code === TOKEN_EXPIRED) return 'renew';
  if (code === POLICY || (code >= 4500 && code <= 4999)) return 'stop';
  return 'reconnect';
}

/** Longer with each attempt, and never as long as others wait: clients that were cut off together come back spread out. */
export function backoff_ms(attempt: number, first_ms: number, most_ms: number): number {
  const wait_ms = Math.min(most_ms, first_ms * 2 ** attempt);
  return wait_ms * (0.5 + Math.random() / 2);
}
