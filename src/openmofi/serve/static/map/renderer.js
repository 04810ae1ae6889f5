/* Draws points with WebGL 2: one draw call, whatever their number. */

const VERTEX = `#version 300 es
layout(location = 0) in vec2 place;    // 0..1, y upwards
layout(location = 1) in float class_;
uniform vec2 centre, scale;            // clip = (place - centre) * scale
uniform float size;
uniform sampler2D colours;             // one texel per class; alpha: lit or dimmed
out vec4 colour;
void main() {
  colour = texelFetch(colours, ivec2(int(class_), 0), 0);
  gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = size;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 colour;
out vec4 pixel;
void main() {
  vec2 offset = gl_PointCoord - 0.5;
  if (dot(offset, offset) > 0.25) discard;
  pixel = vec4(colour.rgb * colour.a, colour.a);
}`;

/** Makes the renderer of a canvas, or returns null where there is no WebGL 2. */
export function makeRenderer(canvas) {
  // preserveDrawingBuffer: without it a screenshot of the page may find the canvas empty
  const gl = canvas.getContext("webgl2", {
    antialias: false,
    premultipliedAlpha: true,
    preserveDrawingBuffer: true,
  });
  if (!gl) return null;
  const program = link(gl);
  const at = Object.fromEntries(
    ["centre", "scale", "size"].map((name) => [name, gl.getUniformLocation(program, name)]),
  );
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  let points = 0;

  return {
    /** Takes the interleaved Uint16 places and the Uint8 classes. */
    setPoints(places, classes) {
      points = classes.length;
      attribute(gl, 0, 2, gl.UNSIGNED_SHORT, true, places);
      attribute(gl, 1, 1, gl.UNSIGNED_BYTE, false, classes);
    },
    /** Takes 256 colours of four bytes, one per class. */
    setColours(bytes) {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    },
    draw({ x, y, scaleX, scaleY, size }) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(at.centre, x, y);
      gl.uniform2f(at.scale, scaleX, scaleY);
      gl.uniform1f(at.size, size);
      gl.drawArrays(gl.POINTS, 0, points);
    },
    release: () => gl.getExtension("WEBGL_lose_context")?.loseContext(),
  };
}

function attribute(gl, location, size, type, normalised, data) {
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(location);
  gl.vertexAttribPointer(location, size, type, normalised, 0, 0);
}

function link(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS))
    throw new Error(gl.getProgramInfoLog(program));
  return program;
}
