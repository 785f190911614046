/** The explorer: kernels, attention, gradient flow, a training step and action tokens, to see and to touch in a browser with WebGPU. */
import { render } from 'preact';
import { darkColours, lightColours, pageStyle } from '../../model/report/page.ts';
import { App } from './app.tsx';

const style = document.createElement('style');
style.textContent = `${pageStyle}:root[data-theme=light]{${lightColours}}:root[data-theme=dark]{${darkColours}}`;
document.head.prepend(style);
render(<App />, document.getElementById('explorer')!);
