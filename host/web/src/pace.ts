// A token bucket: how fast messages may follow each other so that the server's own limit is never met. Owns the arithmetic alone.

export class Pace {
  private left: number;
  private at_ms = 0;

  constructor(
    private readonly perSecond: number,
    private readonly burst: number,
  ) {
    this.left = burst;
  }

  /** Takes a turn. 0: go on; else the milliseconds to wait before asking again. */
  take(now_ms: number): number {
    this.left = Math.min(this.burst, this.left + (Math.max(0, now_ms - this.at_ms) / 1000) * this.perSecond);
    this.at_ms = now_ms;
    if (this.left < 1) return Math.ceil(((1 - this.left) / this.perSecond) * 1000);
    this.left -= 1;
    return 0;
  }

  /** Nothing for a second: the server had too much. */
  rest(now_ms: number): void {
    this.left = 1 - this.perSecond;
    this.at_ms = now_ms;
  }
}
