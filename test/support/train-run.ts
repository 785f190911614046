/** Short training runs on the tests' own device. */
import { prepareRun, type RunOptions } from '../../model/training/prepare-run.ts';
import { type RunResult, runTraining, type TrainOptions } from '../../model/training/run.ts';
import { type RunSettings, runSettings } from '../../model/training/run-settings.ts';
import { testDevice } from './devices.ts';
import { minutePreset, quietListener, syntheticDataset } from './synthetic-dataset.ts';

/** Settings of a run, and what it takes beside them. */
export interface TestRun
  extends Partial<Omit<RunSettings, 'dataset' | 'from'>>,
    Partial<Pick<RunOptions, 'dataset' | 'coTraining' | 'given' | 'from' | 'resume' | 'listener'>>,
    Omit<TrainOptions, 'checkpointPath'> {}

/** Trains pi0 of `minutePreset` on the synthetic data set, unless `run` says otherwise; a resumed run keeps its own settings. */
export async function trainRun(checkpointPath: string, run: TestRun = {}): Promise<RunResult> {
  const {
    dataset = syntheticDataset(),
    coTraining,
    given,
    from,
    resume,
    listener = quietListener(),
    signal,
    closedLoop,
    onHistory,
    ...asked
  } = run;
  const settings = resume
    ? { ...resume.settings.run, ...asked }
    : runSettings({ system: 'pi0', preset: minutePreset, seed: 3, from: from?.name ?? null, ...asked });
  const prepared = await prepareRun({ settings, dataset, coTraining, given, from, resume, listener });
  return runTraining(await testDevice('normal'), prepared, { checkpointPath, signal, closedLoop, onHistory });
}
