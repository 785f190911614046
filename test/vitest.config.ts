import { defineConfig } from 'vitest/config';

// One process, one device: opening an adapter and compiling pipelines costs more than most tests.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 1,
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
