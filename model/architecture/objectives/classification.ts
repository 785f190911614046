/** A class for each row: of a block, of the residual stream, or of a vision tower's patches. */
import { InputError } from '../../../engine/files/errors.ts';
import { linearCrossEntropy } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { expectBelow, floats, inputNamed, integers, type TrainingBatch } from '../inputs.ts';
import { Table } from '../layers.ts';
import { countOf, type Objective } from './objective.ts';
import { labelCounts, readBlocks, regrouped, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import type { ClassificationSettings } from './settings.ts';

export function classification(
  { name, weight, rows, classes, balanced = false }: ClassificationSettings,
  configuration: ModelConfiguration,
): Objective {
  const { width, group } = rowWidth(configuration, rows);
  const head = new Table(group, `${name}_head`, [classes, width], 'matrix');
  const each = rowCount(configuration, rows);
  return {
    ...{ name, weight, layers: [head] },
    ...readBlocks(configuration, rows),
    meaning: `mean cross-entropy of the class of a row, ${balanced ? 'each class alike, ' : ''}in nats`,
    inputs({ batch, rowTargets }) {
      const own = rowTargets?.[name];
      if (!own) throw new InputError(`the ${name} loss needs rowTargets of '${name}'`);
      const shape = [batch, each];
      expectBelow(`rowTargets/${name}`, own.data, own.valid, classes);
      return {
        [`${name}/target`]: integers(own.data, shape),
        [`${name}/valid`]: balanced ? floats(balancedWeights(own, each), shape) : integers(own.valid, shape),
      };
    },
    /** The loss is a mean over the rows that count; where classes are balanced, over the examples that have such rows. */
    count(inputs) {
      const { data } = inputs[`${name}/valid`];
      if (!balanced) return countOf(data, 0, data.length);
      const starts = Array.from({ length: data.length / each }, (_, example) => example * each);
      return starts.filter((start) => countOf(data, start, each) > 0).length;
    },
    loss({ inputs, values, ...pass }) {
      const target = inputNamed(inputs, `${name}/target`);
      const hidden = regrouped(rowsOfPass(pass, rows), target.shape[0]);
      const valid = inputNamed(inputs, `${name}/valid`);
      return { loss: linearCrossEntropy(hidden, head.rows(values), target, valid, { reduction: 'perToken' }) };
    },
  };
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
