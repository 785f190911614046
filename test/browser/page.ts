/** The page's side: runs test files as they are and tells node about every test. */

import { type File, startTests, type Task, type TaskResult, type VitestRunner } from '@vitest/runner';
import type { PageError, PageResult, PageTask } from './chromium.ts';

declare global {
  /** Node's end, put into the page by `openPage`. */
  function tellNode(result: PageResult): Promise<void>;
}

const configuration: VitestRunner['config'] = {
  root: '/',
  setupFiles: [],
  name: undefined,
  passWithNoTests: false,
  testNamePattern: undefined,
  allowOnly: true,
  sequence: { seed: 0, hooks: 'stack', setupFiles: 'list' },
  chaiConfig: undefined,
  maxConcurrency: 1,
  testTimeout: 1_500_000, // below the time that node waits for an answer
  hookTimeout: 1_500_000,
  retry: 0,
  includeTaskLocation: undefined,
  tags: [],
  tagsFilter: undefined,
  strictTags: false,
};

let start: () => void = () => {};
let finished: Promise<File[]> | null = null;

/** Loads the test files, paths from the root of the repository, and returns their tests; none runs before `run`. */
export function collect(paths: string[]): Promise<PageTask[]> {
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  return new Promise((resolve, reject) => {
    const runner: VitestRunner = {
      config: configuration,
      importFile: (path) => import(/* @vite-ignore */ path),
      onCollected: (files) => resolve(files.map(outline)),
      onBeforeRunFiles: () => started,
      async onTaskUpdate(tasks, events) {
        const done = new Set(events.filter(([, event]) => event === 'test-finished').map(([id]) => id));
        for (const [id, result] of tasks)
          if (done.has(id)) await tellNode({ id, skipped: result?.state === 'skip', errors: errorsOf(result) });
      },
    };
    finished = startTests(
      paths.map((path) => `/${path}`),
      runner,
    );
    finished.catch(reject);
  });
}

/** Runs all tests; the result is what failed outside of any test. */
export async function run(): Promise<PageError[]> {
  start();
  return (await finished!).flatMap(function suiteErrors(task: Task): PageError[] {
    return task.type === 'test' ? [] : [...errorsOf(task.result), ...task.tasks.flatMap(suiteErrors)];
  });
}

/** Which of the modules do not load, each with the reason. */
export async function failingImports(paths: string[]): Promise<string[]> {
  const failures: string[] = [];
  for (const path of paths)
    await import(/* @vite-ignore */ `/${path}`).catch((error) => failures.push(`${path}: ${error}`));
  return failures;
}

function outline(task: Task): PageTask {
  const { id, name, mode, result } = task;
  const tasks = 'tasks' in task ? task.tasks.map(outline) : null;
  return { id, name, skipped: mode !== 'run', errors: errorsOf(result), tasks };
}

function errorsOf(result: TaskResult | undefined): PageError[] {
  return (result?.errors ?? []).map(({ message, stack, diff }) => ({ message, stack, diff }));
}
