/** `insula bench kernels`: every operation of a model's training step, compared with the adapter's roofline. */
import { expectOperations, kernelLines, runKernels } from '../bench/kernels/run.ts';
import { modelShapes } from '../bench/kernels/shapes.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { kernelNotes } from './notes.ts';
import { choice } from './options.ts';

const shapeNames = modelShapes.map(({ name }) => name);
export const shapesOption = choice(
  `sizes of a model: ${shapeNames.join(', ')}; pi by default, pi-eighth on a software adapter`,
  shapeNames,
);

export const benchKernels = command({
  options: { shapes: shapesOption, ...benchOptions() },
  names: 'names of operations',
  notes: kernelNotes,
  interruptible: true,
  async run({ shapes: shape, ...values }, context) {
    const { names } = context;
    expectOperations(names);
    return runBench(values, context, {
      ...{ command: 'bench kernels', lines: kernelLines },
      run: (device, budget) => runKernels(device, { names, shape }, budget),
    });
  },
});
