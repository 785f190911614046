import { type Options, SingleBar } from 'cli-progress';
import { printable } from '../engine/files/errors.ts';
import type { ObjectiveDescription } from '../model/architecture/objectives/index.ts';
import { formatPercent, formatTimes } from '../model/report/markup.ts';
import { type ActingRow, type Losses, ratiosToBaselines } from '../model/training/history.ts';
import type { RunListener } from '../model/training/prepare-run.ts';

const SECONDS_BETWEEN_LINES = 15;
const STEPS_OF_RATE = 20;

/** Alternative texts of a phase's details, the longest first. */
type Details = readonly string[];

/** Reports the progress of a command on standard error: a bar on a terminal, else a line every 15 seconds. */
export class Progress implements RunListener {
  private bar: SingleBar | null = null;
  private lastLine = 0;
  private readonly times: number[] = [];

  note(line: string): void {
    this.end();
    process.stderr.write(`${printable(line)}\n`);
  }

  /** Reports a count: "train: step 3/400 | details". A narrow terminal shows the first of `details` that fits. */
  count(what: string, done: number, total: number, details: Details = ['']): void {
    if (!process.stderr.isTTY) {
      const now = performance.now() / 1000;
      if (done < total && now - this.lastLine < SECONDS_BETWEEN_LINES) return;
      this.lastLine = now;
      process.stderr.write(`${what} ${done}/${total}${details[0]}\n`);
      return;
    }
    const columns = () => process.stderr.columns || 80;
    if (!this.bar) {
      const format: Options['format'] = (_, { value, total, progress }, payload) =>
        progressLine(columns() - 1, progress, `${value}/${total}`, payload);
      this.bar = new SingleBar({ format, hideCursor: true, clearOnComplete: true, fps: 8 });
      this.bar.start(total, done, { what, details });
    } else this.bar.update(done, { what, details });
    this.bar.setTotal(total);
    if (done >= total) this.end();
  }

  /** The progress of a benchmark's rounds, which count in parts of seconds. */
  ofBench(kind?: string): (what: string, done: number, total: number, details?: Details) => void {
    return (what, done, total, details) =>
      this.count(kind === undefined ? what : `${kind}: ${what}`, Math.round(done), total, details);
  }

  compiled(kernel: string, done: number, total: number): void {
    this.count('kernels compiled', done, total, [` ${kernel}`, '']);
  }

  step(step: number, steps: number, losses: Losses, objectives: readonly ObjectiveDescription[]): void {
    const described = describe(losses, objectives);
    this.times.push(performance.now());
    if (this.times.length > STEPS_OF_RATE) this.times.shift();
    const elapsed = (this.times[this.times.length - 1] - this.times[0]) / 1000;
    const rate = (this.times.length - 1) / elapsed;
    // The first two losses may arrive together.
    const known = this.times.length > 2 && elapsed > 0;
    const pace = rate < 1 ? `${(1 / rate).toFixed(1)} seconds per step` : `${rate.toFixed(1)} steps per second`;
    const left = (steps - step) / rate;
    const joined = (parts: string[]) => parts.map((part) => ` | ${part}`).join('');
    const short = joined([described.replaceAll(' loss', '')]);
    const details = known
      ? [
          joined([pace, described, `${formatSeconds(left)} left`]),
          joined([described, `${formatSeconds(left)} left`]),
          `${short}${joined([`${clock(left)} left`])}`,
          `${short}${joined([clock(left)])}`,
          short,
          '',
        ]
      : [joined([described]), short, ''];
    this.count('train: step', step, steps, details);
  }

  heldOut(step: number, losses: Losses, baselines: Losses, objectives: readonly ObjectiveDescription[]): void {
    const ratios = ratiosToBaselines(losses, baselines);
    const compared = objectives.flatMap(({ name, baseline }) =>
      baseline === null || ratios[name] === undefined ? [] : [formatTimes(ratios[name], baseline)],
    );
    const beside = compared.length > 0 ? ` (${compared.join(', ')})` : '';
    this.note(`held out after step ${step}: ${describe(losses, objectives)}${beside}`);
  }

  acted({ step, openLoop, closedLoop }: ActingRow): void {
    const error = formatTimes(openLoop.oneSample / openLoop.bestConstant, 'the best constant chunk');
    const acted = closedLoop
      ? `; closed loop: success ${formatPercent(closedLoop.success)} of ${closedLoop.episodes} episodes, stages ${formatPercent(closedLoop.stageScore)}`
      : '';
    this.note(`acting after step ${step}: open-loop error ${openLoop.oneSample.toFixed(3)} (${error})${acted}`);
  }

  saved(step: number, path: string): void {
    this.note(`saved step ${step} to ${path}`);
  }

  openLoop(done: number, total: number): void {
    this.count('open loop: sampled batch', done, total);
  }

  closedLoop(done: number, total: number): void {
    this.count('closed loop: all episodes at control step', done, total);
  }

  end(): void {
    this.bar?.stop();
    this.bar = null;
  }
}

/** "token loss 1.234, flow loss 0.456" */
export function describe(losses: Losses, objectives: readonly ObjectiveDescription[]): string {
  const known = objectives.filter(({ name }) => losses[name] !== undefined);
  return known.map(({ name, title }) => `${title} ${losses[name].toFixed(3)}`).join(', ');
}

export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Minutes:seconds, or hours:minutes:seconds. */
function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const WIDEST_BAR = 24;
const LEAST_BAR = 6;

/** The longest details that fit, and a bar in the remaining columns. */
export function progressLine(
  columns: number,
  progress: number,
  count: string,
  { what, details }: { what: string; details: Details },
): string {
  const text = (own: string) => `${what} ${count}${own}`;
  const fitting = details.find((own) => text(own).length <= columns) ?? details[details.length - 1];
  const room = Math.min(WIDEST_BAR, columns - text(fitting).length - 1);
  if (room < LEAST_BAR) return text(fitting).slice(0, columns);
  const full = Math.round(Math.min(1, progress) * room);
  return `${what} ${'█'.repeat(full)}${'░'.repeat(room - full)} ${count}${fitting}`;
}
