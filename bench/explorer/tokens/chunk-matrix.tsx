import { type Cell, Matrix } from '../parts.tsx';
import { shape } from './chunks.ts';

const { horizon, dimension } = shape;
const rows = Array.from({ length: dimension }, (_, d) => `dimension ${d}`);
const columns = Array.from({ length: horizon }, (_, at) => String(at));

/** A row for each dimension, a column for each control step or frequency; `cell` gets the index in [horizon, dimension]. */
export function ChunkMatrix(props: { label: string; along: 'step' | 'frequency'; cell(index: number): Cell }) {
  const { label, along } = props;
  const cell = (row: string, column: string, d: number, at: number) => {
    const own = props.cell(at * dimension + d);
    return { ...own, title: `${row}, ${along} ${column}: ${own.title}` };
  };
  return <Matrix {...{ label, rows, columns, cell }} />;
}
