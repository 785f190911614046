/** A class for each row: of a block, of the residual stream, or of a vision tower's patches. */
import { InputError } from '../../../engine/files/errors.ts';
import { linearCrossEntropy } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { expectBelow, floats, type Inputs, inputNamed, integers, type TrainingBatch } from '../inputs.ts';
import { Table } from '../layers.ts';
import { countOf, type LossResult, type Objective, type Pass } from './objective.ts';
import { labelCounts, readBlocks, regrouped, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import type { ClassificationSettings } from './settings.ts';

export class Classification implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers: readonly [Table];
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  private readonly rows: number;

  constructor(
    private readonly settings: ClassificationSettings,
    configuration: ModelConfiguration,
  ) {
    const { name, weight, rows, classes, balanced } = settings;
    this.name = name;
    this.weight = weight;
    this.meaning = `mean cross-entropy of the class of a row, ${balanced ? 'each class alike, ' : ''}in nats`;
    const { width, group } = rowWidth(configuration, rows);
    this.layers = [new Table(group, `${name}_head`, [classes, width], 'matrix')];
    this.rows = rowCount(configuration, rows);
    const { reads, blocks } = readBlocks(configuration, rows);
    this.reads = reads;
    this.blocks = blocks;
  }

  inputs({ batch, rowTargets }: TrainingBatch): Inputs {
    const own = rowTargets?.[this.name];
    if (!own) throw new InputError(`the ${this.name} loss needs rowTargets of '${this.name}'`);
    const shape = [batch, this.rows];
    expectBelow(`rowTargets/${this.name}`, own.data, own.valid, this.settings.classes);
    return {
      [`${this.name}/target`]: integers(own.data, shape),
      [`${this.name}/valid`]: this.settings.balanced
        ? floats(balancedWeights(own, this.rows), shape)
        : integers(own.valid, shape),
    };
  }

  /** The loss is a mean over the rows that count; where classes are balanced, over the examples that have such rows. */
  count(inputs: Inputs): number {
    const { data } = inputs[`${this.name}/valid`];
    if (!this.settings.balanced) return countOf(data, 0, data.length);
    const starts = Array.from({ length: data.length / this.rows }, (_, example) => example * this.rows);
    return starts.filter((start) => countOf(data, start, this.rows) > 0).length;
  }

  loss({ inputs, values, ...pass }: Pass): LossResult {
    const target = inputNamed(inputs, `${this.name}/target`);
    const hidden = regrouped(rowsOfPass(pass, this.settings.rows), target.shape[0]);
    const [head] = this.layers;
    const valid = inputNamed(inputs, `${this.name}/valid`);
    return { loss: linearCrossEntropy(hidden, head.rows(values), target, valid, { reduction: 'perToken' }) };
  }
}

type Targets = NonNullable<TrainingBatch['rowTargets']>[string];

/** Factors of the rows in a mean over examples of means over the classes that an example has; examples without rows do not count. */
function balancedWeights({ data, valid }: Targets, rows: number): Float32Array {
  const examples = labelCounts(data, valid, rows);
  const counted = examples.filter(({ size }) => size > 0).length;
  return Float32Array.from(data, (own, row) => {
    const counts = examples[Math.floor(row / rows)];
    return valid[row] ? 1 / (counted * counts.size * counts.get(own)!) : 0;
  });
}
