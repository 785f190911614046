import { describe, expect, it } from 'vitest';
import { variations } from '../bench/tabletop/scene.ts';
import { describeScenes, sceneOptions, scenesOf, scenesToEvaluate } from '../cli/scenes.ts';
import { evaluateLines } from '../cli/text.ts';

describe('--task and --variation', () => {
  const place = { task: 'place', variation: 'simple' };

  it('are simple placing by default, and several tasks take turns', () => {
    expect(scenesOf({})).toEqual([place]);
    expect(scenesOf({ task: null, variation: null })).toEqual([place]);
    const task = sceneOptions.task.read(['place,press']);
    expect(scenesOf({ task, variation: 'rich' })).toEqual([
      { task: 'place', variation: 'rich' },
      { task: 'press', variation: 'rich' },
    ]);
  });

  it('of an evaluation are those of the training by default; all variations are evaluated one by one', () => {
    const run = { task: 'open', variation: 'rich' };
    expect(scenesToEvaluate({}, run)).toEqual([run]);
    expect(scenesToEvaluate({ task: 'place' }, run)).toEqual([{ task: 'place', variation: 'rich' }]);
    const all = scenesToEvaluate({ variation: 'all' }, run);
    expect(all).toEqual(Object.keys(variations).map((variation) => ({ task: 'open', variation })));
  });

  it('are named in the lines of results, unless they are the default', () => {
    const result = (settings: object) => ({
      ...describeScenes(scenesOf(settings)),
      ...{ success: 0.5, rightObject: 0.75, stageScore: 0.625, decodes: { chunks: 160, malformed: 1 }, episodes: 20 },
    });
    const lines = (...closedLoop: ReturnType<typeof result>[]) =>
      evaluateLines({
        ...{ closedLoop, language: null, openLoop: null, record: null, adapter: '', checkpoint: 'FILE', system: 'pi0' },
        ...{ ema: 0.9, seed: 3, noiseSeed: 0, execution: 'temporal-ensembling', executeSteps: 1, delay: 0 },
      });
    const how =
      'policy: FILE (pi0), the moving average of its weights, decay 0.9, scenes of seed 3, noise of seed 0, temporal-ensembling, a new chunk every control step, delay 0';
    const rates =
      'over 20 episodes: success 10 of 20, 50 % (30 to 70 %); right object 15 of 20, 75 % (53 to 89 %); stages 63 %; malformed decodes 1 of 160 chunks';
    const escaped = rates.replace(/[()]/g, '\\$&');
    expect(lines(result({}))).toEqual([
      expect.stringMatching(`^closed loop ${escaped} \\(success: .* bin, let go; `),
      how,
    ]);
    expect(lines(result({ task: 'press,open', variation: 'rich' }))).toEqual([
      expect.stringMatching(
        `^closed loop \\(press and open, rich\\) ${escaped} \\(press: success: .*; open: success: `,
      ),
      how,
    ]);
    expect(lines(result({ task: 'press' }), result({ task: 'press', variation: 'camera' }))).toEqual([
      `closed loop (press, simple) ${rates}`,
      `closed loop (press, camera) ${rates}`,
      expect.stringMatching('^success: within 40 control steps the named button'),
      how,
    ]);
  });
});
