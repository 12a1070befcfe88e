// Tokens for the demo pages, from the broker's `/demo/token`. Owns asking, keeping and renewing them; never stores one.

/** A token is renewed this long before it ends. */
const MARGIN_MS = 30_000;

/** Gives a token; a new one if the last was refused. An error with `final: true` says that there never will be one. */
export type TokenSource = (renew: boolean) => Promise<string>;

/** The broker gives no token for these claims, however often it is asked. */
export class TokenRefused extends Error {
  readonly final = true;
}

/** Tokens of one user with these claims; a claim that is JSON is taken as such. */
export function demoTokens(user: string, claims: Record<string, string>): TokenSource {
  let kept: { token: string; expires_ms: number } | null = null;
  return async (renew) => {
    if (kept && !renew && kept.expires_ms - Date.now() > MARGIN_MS) return kept.token;
    const query = new URLSearchParams({ user, key: 'default', ...claims });
    const response = await fetch(`/demo/token?${query}`, { cache: 'no-store' });
    const answer: unknown = await response.json().catch(() => null);
    const { token, expiresAt } = (answer ?? {}) as { token?: unknown; expiresAt?: unknown };
    if (!response.ok || typeof token !== 'string') {
      const why = errorText(answer) ?? `the broker gave no token (HTTP ${response.status})`;
      throw response.status < 500 && response.status !== 429 ? new TokenRefused(why) : new Error(why);
    }
    kept = { token, expires_ms: Number(expiresAt) };
    return token;
  };
}

/** What an answer `{"error": …}` says, in either of its forms. */
export function errorText(answer: unknown): string | null {
  const error = (answer as { error?: unknown } | null)?.error;
  if (typeof error === 'string') return error;
  const message = (error as { message?: unknown } | null)?.message;
  return typeof message === 'string' ? message : null;
}
