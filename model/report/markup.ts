import { printable } from '../../engine/files/errors.ts';
import { wilsonInterval } from './wilson.ts';

/** Text that is HTML already. Plain strings are not, and are escaped when they enter a page. */
export class Markup {
  constructor(readonly text: string) {}
}

type Piece = Markup | string | number | undefined | readonly Piece[];

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function toText(piece: Piece): string {
  if (piece === undefined) return '';
  if (piece instanceof Markup) return piece.text;
  if (typeof piece === 'object') return piece.map(toText).join('');
  return printable(String(piece)).replace(/[&<>"']/g, (character) => entities[character]);
}

/** An HTML template: every value that is not `Markup` is escaped, for text and quoted attributes alike. */
export function html(strings: TemplateStringsArray, ...values: Piece[]): Markup {
  return new Markup(strings.reduce((text, string, i) => text + toText(values[i - 1]) + string));
}

const superscripts = '⁰¹²³⁴⁵⁶⁷⁸⁹';

/** 10 to a whole power: "10⁻³". */
export function powerOfTen(exponent: number): string {
  return `10${String(exponent).replace(/./g, (digit) => (digit === '-' ? '⁻' : superscripts[Number(digit)]))}`;
}

/** Three significant digits: "0.412", "1,230", "3.10 × 10⁻⁹"; whole numbers in full; "NaN", "Infinity". */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  let text: string;
  if (!Number.isFinite(value)) text = String(value);
  else if (Number.isInteger(value) && size < 1e15) text = value.toLocaleString('en-US');
  else if (size >= 0.001 && size < 1e6) text = value.toLocaleString('en-US', significant);
  else {
    const [mantissa, exponent] = value.toExponential(2).split('e');
    text = `${mantissa} × ${powerOfTen(Number(exponent))}`;
  }
  return text.replace('-', '−');
}

const significant = { minimumSignificantDigits: 3, maximumSignificantDigits: 3 };

/** A ratio with two significant digits, from 1 to 10 with three, or as many as it takes not to read as 1: "0.46", "1.29", "0.998". */
export function formatRatio(value: number): string {
  if (!(value >= 0.001 && value < 100)) return formatNumber(value);
  const rounded = (digits: number): string => {
    const text = value.toLocaleString('en-US', { minimumSignificantDigits: digits, maximumSignificantDigits: digits });
    return Number(text) === 1 && value !== 1 ? rounded(digits + 1) : text;
  };
  return rounded(value >= 1 && value < 9.995 ? 3 : 2);
}

/** A figure as a multiple of that of a predictor that ignores its input: "0.46 ×", "1.29 × that of the constant (worse)". */
export function formatTimes(ratio: number, of = ''): string {
  return `${formatRatio(ratio)} ×${of && ` ${of}`}${ratio > 1 ? ' (worse)' : ratio === 1 ? ' (no better)' : ''}`;
}

/** A share of counted trials with its 95 % Wilson interval: "17 of 20, 85 % (64 to 95 %)". */
export function formatShare(count: number, of: number): string {
  const { low, high } = wilsonInterval(count, of);
  return `${count} of ${of}, ${formatPercent(count / of)} (${formatPercent(low).replace(' %', '')} to ${formatPercent(high)})`;
}

/** "48 s", "4 min 12 s", "2 h 5 min"; under ten seconds with a decimal. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** At most `limit` characters; the last is an ellipsis if some were cut. */
export function shorten(text: string, limit: number): string {
  const characters = [...text];
  return characters.length > limit ? `${characters.slice(0, limit - 1).join('')}…` : text;
}

export function formatPercent(share: number, decimals = 0): string {
  return `${(100 * share).toFixed(decimals)} %`;
}
