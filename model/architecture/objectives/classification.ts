/** A class for each row: of a block, of the residual stream, or of a vision tower's patches. */
import { InputError } from '../../../engine/files/errors.ts';
import { linearCrossEntropy } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { expectBelow, type Inputs, inputNamed, integers, type TrainingBatch } from '../inputs.ts';
import { Table } from '../layers.ts';
import { countOf, type LossResult, type Objective, type Pass } from './objective.ts';
import { readBlocks, regrouped, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import type { ClassificationSettings } from './settings.ts';

export class Classification implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning = 'mean cross-entropy of the class of a row, in nats';
  readonly layers: readonly [Table];
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  private readonly rows: number;

  constructor(
    private readonly settings: ClassificationSettings,
    configuration: ModelConfiguration,
  ) {
    const { name, weight, rows, classes } = settings;
    this.name = name;
    this.weight = weight;
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
      [`${this.name}/valid`]: integers(own.valid, shape),
    };
  }

  /** The loss is a mean over the rows that count. */
  count(inputs: Inputs): number {
    const { data } = inputs[`${this.name}/valid`];
    return countOf(data, 0, data.length);
  }

  loss({ inputs, values, ...pass }: Pass): LossResult {
    const target = inputNamed(inputs, `${this.name}/target`);
    const hidden = regrouped(rowsOfPass(pass, this.settings.rows), target.shape[0]);
    const [head] = this.layers;
    const valid = inputNamed(inputs, `${this.name}/valid`);
    return { loss: linearCrossEntropy(hidden, head.rows(values), target, valid, { reduction: 'perToken' }) };
  }
}
