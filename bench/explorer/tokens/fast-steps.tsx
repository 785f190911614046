import type { FastExplanation } from '../../../tokenizers/index.ts';
import { digits } from '../../measure/table.ts';
import { type Cell, Figure, Matrix, Slider } from '../parts.tsx';
import { shape } from './chunks.ts';
import { coefficientAt, type Span, shortened } from './spelling.ts';

const { horizon, dimension } = shape;
const rows = Array.from({ length: dimension }, (_, d) => `dimension ${d}`);
const columns = Array.from({ length: horizon }, (_, frequency) => String(frequency));

/** The way of a chunk to FAST's ids: coefficients, integers, and the string with its merges. */
export function FastSteps(props: {
  explanation: FastExplanation;
  /** The string after the merges that are shown. */
  spans: readonly Span[];
  selected: Span | undefined;
  /** The coefficient of symbol 0, and the number of symbols. */
  minimum: number;
  symbols: number;
  /** The largest error of the chunk, and without the selected token. */
  errors: readonly [own: number, without: number] | undefined;
  onToken(token: number | null): void;
  onMerged(count: number | null): void;
}) {
  const { explanation, spans, selected, minimum, symbols, errors, onToken, onMerged } = props;
  const { coefficients, quantised, merges } = explanation;
  const count = explanation.symbols.length - spans.length;
  const largest = Math.max(...coefficients.map(Math.abs)) || 1;
  const inSelected = (index: number) =>
    selected !== undefined && selected.at <= index && index < selected.at + selected.length;
  const select = (at: number) => onToken(inSelected(at) ? null : at);
  /** A cell for each coefficient, clicked to select the token that holds it. */
  const cell =
    (numbers: Float64Array, write: (number: number) => string) =>
    (row: string, column: string): Cell => {
      const index = Number(column) * dimension + rows.indexOf(row);
      const text = write(numbers[index] + 0);
      return {
        text,
        ...{ shade: (0.9 * coefficients[index]) / largest, marked: inSelected(index), hatched: quantised[index] === 0 },
        title: `${row}, frequency ${column}: ${text}`,
        onClick: () => select(index),
      };
    };
  const spelled = ({ at, length }: Span) =>
    Array.from(explanation.symbols.subarray(at, at + length), (symbol) => symbol + minimum);
  const merge = merges[count - 1];
  return (
    <>
      <Figure
        title="1. Discrete cosine transform over time"
        unit="normalised units"
        see="Each dimension becomes frequencies, slow ones to the left. A smooth movement has its weight there. Hatched: what the next step rounds to zero."
      >
        <Matrix
          label="Coefficients"
          rows={rows}
          columns={columns}
          cell={cell(coefficients, (c) => (Math.round(100 * c) / 100 + 0).toFixed(2))}
        />
      </Figure>
      <Figure
        title="2. Quantised"
        unit="steps of 1 / scale"
        see="The coefficients times the scale, rounded to integers. This rounding is all that FAST loses."
      >
        <Matrix label="Quantised coefficients" rows={rows} columns={columns} cell={cell(quantised, String)} />
      </Figure>
      <Figure
        title="3. Flattened and merged"
        see="The integers in one line, all dimensions of frequency 0 first. Merges that were learned from other chunks join neighbours, the most frequent pair first, until none fits: what is left are the tokens, with the id above and its integers below."
      >
        <div class="tokens-merges">
          <Slider
            label="Merges applied"
            value={count}
            min={0}
            max={merges.length}
            text={`${count} of ${merges.length}`}
            onChange={(count) => onMerged(count === merges.length ? null : count)}
          />
        </div>
        <p class="small tokens-merge" aria-live="polite">
          {merge &&
            `Merge ${count}: ${merge.left} and ${merge.right} became ${merge.id}, merge ${merge.id - symbols} of those learned.`}
        </p>
        <ol class="tokens-chips">
          {spans.map((span) => (
            <li key={span.at}>
              <button
                type="button"
                aria-pressed={span === selected}
                class={merge && span.at === merge.at ? 'fresh' : undefined}
                onClick={() => select(span.at)}
              >
                <b>{span.id}</b>
                <span>{shortened(spelled(span))}</span>
              </button>
            </li>
          ))}
        </ol>
        <div class="tokens-token" aria-live="polite">
          {selected && errors ? (
            <p>
              Token {spans.indexOf(selected)} with id {selected.id} stands for{' '}
              {spelled(selected)
                .map((number, i) => {
                  const { dimension, frequency } = coefficientAt(selected.at + i);
                  return `${number} at dimension ${dimension}, frequency ${frequency}`;
                })
                .join('; ')}
              . Without it (zeros in its place, thin and red in the plot) the largest error is {digits(errors[1])} in
              place of {digits(errors[0])}.
            </p>
          ) : (
            <p class="small">Click a token or a coefficient: it shows what the token says, and the chunk without it.</p>
          )}
        </div>
      </Figure>
    </>
  );
}
