import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Pages come first: they take a minute or two, in which their worker waits. */
class PagesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const ofPages = ({ moduleId }: TestSpecification) => moduleId.includes('/test/browser/');
    return (await super.sort(files)).sort((a, b) => Number(ofPages(b)) - Number(ofPages(a)));
  }
}

// Two processes, one device of a kind in each: opening an adapter and compiling pipelines costs more than most tests, and a software
// adapter compiles with one core.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/mappings.ts'],
    pool: 'forks',
    maxWorkers: 2,
    isolate: false,
    sequence: { sequencer: PagesFirst },
    // Against hangs only: a machine may have ten times as much to do as it has cores.
    testTimeout: 1_800_000,
    hookTimeout: 1_800_000,
  },
});
