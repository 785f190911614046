import { SingleBar } from 'cli-progress';
import type { RunListener } from '../model/training/run.ts';
import type { Losses } from '../model/training/trainer.ts';

const SECONDS_BETWEEN_LINES = 15;
const STEPS_OF_RATE = 20;

/** Tells a person on standard error how far a run is: a bar on a terminal, now and then a line elsewhere. */
export class Progress implements RunListener {
  private bar: SingleBar | null = null;
  private lastLine = 0;
  private readonly times: number[] = [];

  note(line: string): void {
    this.end();
    process.stderr.write(`${line}\n`);
  }

  /** A phase that counts something: "train: step 3/400 | details". */
  count(what: string, done: number, total: number, details = ''): void {
    const text = `${what} ${done}/${total}${details}`;
    if (!process.stderr.isTTY) {
      const now = performance.now() / 1000;
      if (done < total && now - this.lastLine < SECONDS_BETWEEN_LINES) return;
      this.lastLine = now;
      process.stderr.write(`${text}\n`);
      return;
    }
    if (!this.bar) {
      this.bar = new SingleBar({
        format: '{what} {bar} {value}/{total}{details}',
        barsize: 24,
        hideCursor: true,
        clearOnComplete: true,
        fps: 8,
      });
      this.bar.start(total, done, { what, details });
    } else this.bar.update(done, { what, details });
    this.bar.setTotal(total);
    if (done >= total) this.end();
  }

  compiled(kernel: string, done: number, total: number): void {
    this.count('kernels compiled', done, total, ` ${kernel}`);
  }

  step(step: number, steps: number, losses: Losses): void {
    this.times.push(performance.now());
    if (this.times.length > STEPS_OF_RATE) this.times.shift();
    const elapsed = (this.times[this.times.length - 1] - this.times[0]) / 1000;
    const rate = (this.times.length - 1) / elapsed;
    // The first two losses may arrive together.
    const known = this.times.length > 2 && elapsed > 0;
    const pace = rate < 1 ? `${(1 / rate).toFixed(1)} seconds a step` : `${rate.toFixed(1)} steps a second`;
    const details = known
      ? [pace, describe(losses), `${formatSeconds((steps - step) / rate)} left`]
      : [describe(losses)];
    this.count('train: step', step, steps, details.map((part) => ` | ${part}`).join(''));
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
