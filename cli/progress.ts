import { type Options, SingleBar } from 'cli-progress';
import type { RunListener } from '../model/training/prepare-run.ts';
import type { Losses } from '../model/training/trainer.ts';

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
    process.stderr.write(`${line}\n`);
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

  compiled(kernel: string, done: number, total: number): void {
    this.count('kernels compiled', done, total, [` ${kernel}`, '']);
  }

  step(step: number, steps: number, losses: Losses): void {
    this.times.push(performance.now());
    if (this.times.length > STEPS_OF_RATE) this.times.shift();
    const elapsed = (this.times[this.times.length - 1] - this.times[0]) / 1000;
    const rate = (this.times.length - 1) / elapsed;
    // The first two losses may arrive together.
    const known = this.times.length > 2 && elapsed > 0;
    const pace = rate < 1 ? `${(1 / rate).toFixed(1)} seconds per step` : `${rate.toFixed(1)} steps per second`;
    const left = (steps - step) / rate;
    const joined = (parts: string[]) => parts.map((part) => ` | ${part}`).join('');
    const short = joined([describe(losses).replaceAll(' loss', '')]);
    const details = known
      ? [
          joined([pace, describe(losses), `${formatSeconds(left)} left`]),
          joined([describe(losses), `${formatSeconds(left)} left`]),
          `${short}${joined([`${clock(left)} left`])}`,
          `${short}${joined([clock(left)])}`,
          short,
          '',
        ]
      : [joined([describe(losses)]), short, ''];
    this.count('train: step', step, steps, details);
  }

  heldOut(
    step: number,
    losses: Losses,
    { unigram, constantVelocity }: { unigram?: number; constantVelocity?: number },
  ): void {
    const ratio = (loss: number | undefined, baseline: number | undefined, name: string) =>
      loss === undefined || baseline === undefined ? [] : [`${(loss / baseline).toFixed(2)} x ${name}`];
    const ratios = [
      ...ratio(losses.tokenLoss, unigram, 'unigram'),
      ...ratio(losses.flowLoss, constantVelocity, 'best constant velocity'),
    ];
    this.note(`held out after step ${step}: ${describe(losses)} (${ratios.join(', ')})`);
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

export function describe({ tokenLoss, flowLoss, answerLoss }: Losses): string {
  const parts = [];
  if (tokenLoss !== undefined) parts.push(`token loss ${tokenLoss.toFixed(3)}`);
  if (flowLoss !== undefined) parts.push(`flow loss ${flowLoss.toFixed(3)}`);
  if (answerLoss !== undefined) parts.push(`token loss of answers ${answerLoss.toFixed(3)}`);
  return parts.join(', ');
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
