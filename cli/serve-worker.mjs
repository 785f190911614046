// Node only: starts serve-worker.ts in a thread, which has no TypeScript loader of its own.
import { register } from 'tsx/esm/api';

register();
await import('./serve-worker.ts');
