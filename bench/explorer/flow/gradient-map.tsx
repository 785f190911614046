import { type ZeroCause, zeroCauses } from '../../../model/inspect/gradient-flow.ts';
import { type Cell, Figure, Legend, Matrix } from '../parts.tsx';
import type { LiveGradients } from './live-run.ts';

/** Orders of magnitude below the largest norm of a loss that still have a colour. */
const DECADES = 4;

/** Gradient norms by loss and part of the model, and cosines between losses. */
export function GradientMap({ gradients }: { gradients: LiveGradients | null }) {
  const see =
    'Rows are layers, from the picture to the losses. Hatched: every element of that gradient is exactly 0. A cut edge is one cause of that; “explain zeros”, above, finds the cause of each.';
  if (!gradients)
    return (
      <Figure title="Gradient that reaches each layer" see={see}>
        <p class="flow-later">It is measured as training goes on, or by the button above.</p>
      </Figure>
    );
  const { parts, losses, pairs, step } = gradients;
  const rows = parts.map(({ group, name }) => `${group} ${name}`);
  const pairName = ([a, b]: readonly [string, string]) => `cos ${a}, ${b}`;
  const largest = (loss: string) => Math.max(...losses[loss].map(({ norm }) => norm));
  const cell = (row: string, column: string): Cell | null => {
    const part = rows.indexOf(row);
    const pair = pairs.find(({ names }) => pairName(names) === column);
    if (pair) return cosineCell(pair.cells[part].cosine, `${row}, ${pair.names.join(' and ')}`);
    const { norm, isZero, causes } = losses[column][part];
    const reason = causes?.map((cause) => zeroCauses[cause].words).join(', and ');
    if (isZero) {
      const title = `${column} loss to ${row}: exactly 0${reason ? `: ${reason}` : ''}`;
      return { text: causes ? marksOf(causes) : '0', hatched: true, title };
    }
    const shade = Math.max(0.03, 1 + Math.log10(norm / largest(column)) / DECADES);
    return { text: norm.toPrecision(2), shade, title: `${column} loss to ${row}: norm ${norm.toPrecision(4)}` };
  };
  const found = Object.values(losses).flatMap((cells) => cells.flatMap(({ causes }) => (causes ? [causes] : [])));
  const together = new Set(found.filter(({ length }) => length > 1).map(marksOf));
  return (
    <Figure title={`Gradient that reaches each layer, after step ${step}`} unit="L2 norm, cosine" see={see}>
      <Matrix
        label={`Gradients after step ${step}`}
        {...{ rows, cell }}
        columns={[...Object.keys(losses), ...pairs.map(({ names }) => pairName(names))]}
      />
      <Legend
        items={[
          { text: 'larger norm, or the losses agree', fill: 'var(--line1)' },
          { text: 'the losses pull against each other', fill: 'var(--line2)' },
          { text: '0 in every element', hatched: true },
          ...[...new Set(found.flat())].map((cause) => ({
            text: `${zeroCauses[cause].mark}: ${zeroCauses[cause].words}`,
          })),
          ...[...together].map((marks) => ({ text: `${marks}: ${marks.length > 3 ? 'all' : 'both'} have to go` })),
        ]}
      />
    </Figure>
  );
}

const marksOf = (causes: readonly ZeroCause[]) => causes.map((cause) => zeroCauses[cause].mark).join('+');

function cosineCell(cosine: number | null, of: string): Cell {
  if (cosine === null) return { text: '–', hatched: true, title: `${of}: one of the gradients is exactly 0` };
  return {
    text: (Math.round(100 * cosine) / 100 + 0).toFixed(2).replace('-', '−'),
    shade: cosine,
    title: `${of}: cosine ${cosine.toFixed(4)}`,
  };
}
