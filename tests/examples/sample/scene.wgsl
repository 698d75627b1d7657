// Draws the vertices of scene.rs.

struct Uniforms {
    axes: vec4<f32>,
    light: vec4<f32>,
}

struct Vertex {
    @location(0) position: vec2<f32>,
    @location(1) colour: vec3<f32>,
    @location(2) turned: f32,
}

struct Fragment {
    @builtin(position) position: vec4<f32>,
    @location(0) colour: vec3<f32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

@vertex
fn vertex(in: Vertex) -> Fragment {
    let turned = in.position.x * uniforms.axes.xy + in.position.y * uniforms.axes.zw;
    let position = mix(in.position, turned, in.turned);
    return Fragment(vec4<f32>(position, 0.0, 1.0), in.colour * uniforms.light.rgb);
}

@fragment
fn fragment(in: Fragment) -> @location(0) vec4<f32> {
    return vec4<f32>(in.colour, 1.0);
}
