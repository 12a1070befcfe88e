// A small chart of the last minutes. Owns the drawing on uPlot, in the colours of the page, and a cursor that all charts of the page share.

import uPlot from 'uplot';
import css from 'uplot/dist/uPlot.min.css';

export interface Line {
  label: string;
  /** A custom property of the style sheet. */
  colour: '--sea' | '--sun';
  dashed?: boolean;
}

export interface ChartOptions {
  lines: Line[];
  /** The range of the values, if it is fixed. */
  range?: [number, number];
  /** There is nothing between two whole numbers. */
  whole?: boolean;
  format: (value: number) => string;
  /** The place of the cursor among the points; `null` when it leaves. */
  onHover: (index: number | null) => void;
}

/** Shown at least, so that the first points stand at the right edge and not all over the width. */
const WINDOW_S = 60;
const HEIGHT = 104;
/** Half a label of the time axis. */
const EDGE_PX = 28;

const sheet = new CSSStyleSheet();
sheet.replaceSync(css);
document.adoptedStyleSheets.push(sheet);

export class Chart {
  private plot: uPlot | null = null;
  private data: uPlot.AlignedData = [[]];
  private readonly sized: ResizeObserver;
  private readonly dark = matchMedia('(prefers-color-scheme: dark)');
  private readonly recolour = (): void => this.draw();

  constructor(
    private readonly host: HTMLElement,
    private readonly options: ChartOptions,
  ) {
    this.sized = new ResizeObserver(() => {
      if (this.plot && this.host.clientWidth) this.plot.setSize({ width: this.host.clientWidth, height: HEIGHT });
    });
    this.sized.observe(host);
    this.dark.addEventListener('change', this.recolour);
    this.draw();
  }

  /** Points in time, in seconds, and the values of each line. */
  set(data: uPlot.AlignedData): void {
    this.data = data;
    this.plot?.setData(data);
  }

  destroy(): void {
    this.sized.disconnect();
    this.dark.removeEventListener('change', this.recolour);
    this.plot?.destroy();
  }

  private draw(): void {
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const { lines, range, whole, format, onHover } = this.options;
    const axis: uPlot.Axis = { stroke: colour('--muted'), font: `11px ${style.fontFamily || 'sans-serif'}`, ticks: { show: false }, border: { show: false } };
    this.plot = new uPlot(
      {
        width: this.host.clientWidth || 280,
        height: HEIGHT,
        padding: [8, 0, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: 'metrics' }, y: false, drag: { x: false, y: false }, points: { size: 7, fill: colour('--raised') } },
        scales: {
          x: { time: true, range: ({ data: [at] }) => span(at) },
          y: { range: range ?? ((_plot, min, max) => spread(min, max)) },
        },
        axes: [
          { ...axis, grid: { show: false }, size: 20, gap: 4, space: 76, values: timesOf },
          { ...axis, side: 1, size: 44, gap: 6, space: 36, ...(whole ? { incrs: WHOLE } : {}), grid: { stroke: colour('--line'), width: 1 }, values: (_plot, values) => values.map(format) },
        ],
        series: [
          {},
          ...lines.map((line): uPlot.Series => ({
            label: line.label,
            stroke: colour(line.colour),
            fill: line.dashed ? undefined : `${colour(line.colour)}22`,
            width: 2,
            dash: line.dashed ? [4, 4] : undefined,
            points: { show: (plot) => plot.data[0].length === 1, size: 6 },
            // Figures hold until the next come.
            paths: uPlot.paths.stepped?.({ align: 1 }),
          })),
        ],
        hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
      },
      this.data,
      this.host,
    );
  }
}

/** Steps between the lines of a scale of whole numbers. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

const time = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit' });
const exact = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** From the first point to the last. uPlot would give a single one a whole day. */
function span(at: ArrayLike<number>): [number, number] {
  const last = at[at.length - 1] ?? WINDOW_S;
  return [Math.min(at[0] ?? 0, last - WINDOW_S), last];
}

/** With seconds where minutes would be the same, and none where the left edge would cut it. */
function timesOf(plot: uPlot, seconds: number[]): (string | null)[] {
  const [first = 0, second = first] = seconds;
  const words = second - first < 60 ? exact : time;
  return seconds.map((value) => (plot.valToPos(value, 'x') < EDGE_PX ? null : words.format(value * 1000)));
}

/** Room around values that are all the same, and the zero where it is near. */
function spread(min: number | null, max: number | null): [number, number] {
  const low = min ?? 0;
  const high = max ?? 1;
  const room = (high - low || Math.abs(high) || 1) * 0.25;
  const bottom = low >= 0 ? Math.max(0, low - room) : low - room;
  return [bottom, high + room];
}
