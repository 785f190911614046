// The middle of a gated MLP: what lies between its products (linear.ts).                     Shazeer 2020, arXiv 2002.05202
//
//   output = (gelu(x gate^T) * (x up^T)) down^T
//
// With g = x gate^T and u = x up^T, forward and backward in one pass each:
//
//   y  = gelu(g) u
//   dg = dy u gelu'(g)
//   du = dy gelu(g)
//
//   gelu(g) = g s(z)      gelu'(g) = s(z) + g s(z) (1 - s(z)) dz/dg      s(z) = 1 / (1 + exp(-z))      z = 2 sqrt(2/pi) (g + 0.044715 g^3)
//
// the tanh form of GELU, since (1 + tanh(z/2)) / 2 = s(z); see activation.wgsl. Shapes: g, u, y, dy, dg, du [rows, hidden], read in
// groups of four. Gradients are f32, whatever the storage.

const THREADS: u32 = 64u;                                                    // @param
alias Word = vec4f;                                                          // @param  storage of four elements
fn unpack(word: Word) -> vec4f { return word; }                              // @param
fn pack(value: vec4f) -> Word { return value; }                              // @param

struct Shape { groups: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gate: array<Word>;                 // g
@group(0) @binding(2) var<storage, read> up: array<Word>;                   // u
@group(0) @binding(3) var<storage, read_write> y: array<Word>;
@group(0) @binding(4) var<storage, read> dy: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dGate: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> dUp: array<vec4f>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 {
  return (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
}

// Beyond +-10 s(z) is 0 or 1 to the last bit, and g^3 would overflow one day.
fn near(g: vec4f) -> vec4f { return clamp(g, vec4f(-10.0), vec4f(10.0)); }

// exp(-|z|), of which s(z) and its slope are made without overflow or cancellation.
fn decay(g: vec4f) -> vec4f {
  return exp(-1.5957691216057308 * abs(near(g) + 0.044715 * near(g) * near(g) * near(g)));
}

fn logistic(g: vec4f, e: vec4f) -> vec4f { return select(e, vec4f(1.0), g >= vec4f()) / (1.0 + e); }

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.groups) { return; }
  let g = unpack(gate[i]);
  y[i] = pack(g * logistic(g, decay(g)) * unpack(up[i]));
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = position(workgroup, workgroups, thread);
  if (i >= shape.groups) { return; }
  let g = unpack(gate[i]);
  let e = decay(g);
  let s = logistic(g, e);
  let slope = e / ((1.0 + e) * (1.0 + e)) * 1.5957691216057308 * (1.0 + 0.134145 * near(g) * near(g));
  dGate[i] = dy[i] * unpack(up[i]) * (s + near(g) * slope);
  dUp[i] = dy[i] * g * s;
}
