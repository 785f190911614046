/** The variants of matrix products to measure, for the products in a model. */
import { type DataType, type Device, type Tensor, tensor, withoutTape } from '../../engine/index.ts';
import {
  type FloatType,
  gatedMlp,
  type MatmulKey,
  matmul,
  matmulVariants,
  useMatmulVariants,
} from '../../kernels/index.ts';
import { matmulSize } from '../../kernels/matmul-variants.ts';
import { type Candidates, worthMeasuring } from '../measure/candidates.ts';
import { waves } from '../measure/operation-task.ts';
import { remembered } from '../measure/table.ts';
import type { ModelShape } from './shapes.ts';

/** A product A [rows, depth] times B [depth, columns], and how both are stored. */
interface Product extends Pick<MatmulKey, 'transposeA' | 'transposeB' | 'sides'> {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
}

/** The products of a model: of each linear map forward, the gradient of its input and that of its weight; and of gated MLPs. */
function productsOf({ batch, prefix, fast, action, ...model }: ModelShape): Product[] {
  const { width, hidden, expertWidth, expertHidden, heads, headDimension } = model;
  const inner = heads * headDimension;
  const [rows, ownRows] = [batch * (prefix + fast), batch * action];
  const maps = [
    [rows, width, inner],
    [rows, inner, width],
    [rows, hidden, width],
    [ownRows, expertWidth, inner],
    [ownRows, inner, expertWidth],
    [ownRows, expertHidden, expertWidth],
    [batch, expertWidth, 3 * expertWidth],
  ];
  const one = { sides: 1 } as const;
  const linear = maps.flatMap(([rows, inputs, outputs]): Product[] => [
    { ...one, transposeA: false, transposeB: true, rows, columns: outputs, depth: inputs },
    { ...one, transposeA: false, transposeB: false, rows, columns: inputs, depth: outputs },
    { ...one, transposeA: true, transposeB: false, rows: outputs, columns: inputs, depth: rows },
  ]);
  const gated = [
    [rows, width, hidden],
    [ownRows, expertWidth, expertHidden],
  ].map(([rows, depth, columns]): Product => ({ sides: 2, transposeA: false, transposeB: true, rows, columns, depth }));
  return [...linear, ...gated];
}

/** The candidates with the operands that they share, which live until disposed. */
export class ProductCandidates implements Disposable {
  readonly all: readonly Candidates<MatmulKey>[];
  private readonly operands = new Map<string, Tensor>();

  /** A key has one candidate, at the first product with that key. */
  constructor(
    private readonly device: Device,
    model: ModelShape,
    storages: readonly FloatType[],
  ) {
    const seen = new Set<string>();
    this.all = productsOf(model).flatMap((product) =>
      storages.flatMap((dtype) => {
        const { rows, columns, depth, ...form } = product;
        const key = { a: dtype, b: dtype, ...form, size: matmulSize(rows, columns, 1) };
        if (seen.has(JSON.stringify(key))) return [];
        seen.add(JSON.stringify(key));
        const variants = worthMeasuring(matmulVariants(device, key));
        const run = this.runOf(product, key);
        const task = (variant: string) => ({
          prepare: () => {
            useMatmulVariants(device, [{ ...key, variant }]);
            return run;
          },
        });
        return [{ key, variants, sizes: `${rows} x ${columns} x ${depth}`, task }];
      }),
    );
  }

  /** Runs the product. The two products of a gated MLP run together with its third, which keeps its variant. */
  private runOf({ rows, columns, depth }: Product, { a: dtype, transposeA, transposeB, sides }: MatmulKey): () => void {
    const a = transposeA ? this.operand(depth, rows, dtype) : this.operand(rows, depth, dtype);
    const b = transposeB ? this.operand(columns, depth, dtype) : this.operand(depth, columns, dtype);
    const down = sides === 2 ? this.operand(depth, columns, dtype) : null;
    const run = () => (down ? gatedMlp(a, b, b, down) : matmul(a, b, { transposeA, transposeB }));
    return () => void withoutTape(this.device, run);
  }

  private operand(rows: number, columns: number, dtype: DataType): Tensor {
    return remembered(this.operands, `${rows} x ${columns} ${dtype}`, () =>
      tensor(this.device, waves(rows * columns, 1, columns), [rows, columns], { dtype }),
    );
  }

  [Symbol.dispose](): void {
    for (const operand of this.operands.values()) operand.dispose();
  }
}
