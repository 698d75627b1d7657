//! The Wayland window and its Vulkan surface.

use std::rc::Rc;

use ash::{khr, vk};
use raw_window_handle::{HasDisplayHandle, HasWindowHandle};
use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, EventLoop, OwnedDisplayHandle};
use winit::window::{Window, WindowId};

use crate::error::{Context, Error, Result};
use crate::gpu::Gpu;
use crate::instance::Instance;
use crate::options::Options;
use crate::renderer::Renderer;
use crate::swapchain::Swapchain;
use crate::{finish, loader, physical};

/// Runs the frames in a window; closing it ends the run early.
pub(crate) fn run(options: &Options) -> Result<String> {
    // winit's own line names a place in winit's source: of no use to whoever reads it here.
    let event_loop = EventLoop::new().map_err(|_| {
        Error::new(
            "no Wayland compositor: look at WAYLAND_DISPLAY and XDG_RUNTIME_DIR, or leave out --window",
        )
    })?;
    let mut application = Application { options, session: None, outcome: None };
    event_loop.run_app(&mut application).context("the connection to the Wayland compositor")?;
    application.outcome.unwrap_or_else(|| Err(Error::new("the window went away")))
}

/// What winit drives.
struct Application<'a> {
    options: &'a Options,
    /// None before the start and after the end.
    session: Option<Session>,
    outcome: Option<Result<String>>,
}

/// All that lives while the window is open.
struct Session {
    renderer: Renderer,
    swapchain: Swapchain,
}

impl ApplicationHandler for Application<'_> {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.session.is_some() {
            return;
        }
        match Session::new(event_loop, self.options) {
            Ok(session) => {
                session.swapchain.surface().window.request_redraw();
                self.session = Some(session);
            }
            Err(error) => self.end(event_loop, Err(error)),
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(session) = &mut self.session else { return };
        match event {
            WindowEvent::Resized(_) => session.swapchain.resized(),
            WindowEvent::RedrawRequested => match session.redraw(self.options) {
                Ok(true) => {}
                Ok(false) => self.finish(event_loop),
                Err(error) => self.end(event_loop, Err(error)),
            },
            WindowEvent::CloseRequested => self.finish(event_loop),
            _ => {}
        }
    }
}

impl Application<'_> {
    fn finish(&mut self, event_loop: &ActiveEventLoop) {
        if let Some(session) = &mut self.session {
            let outcome = finish(&mut session.renderer, self.options);
            self.end(event_loop, outcome);
        }
    }

    fn end(&mut self, event_loop: &ActiveEventLoop, outcome: Result<String>) {
        self.outcome = Some(outcome);
        self.session = None;
        event_loop.exit();
    }
}

impl Session {
    fn new(event_loop: &ActiveEventLoop, options: &Options) -> Result<Self> {
        let size = PhysicalSize::new(options.size.width, options.size.height);
        let attributes = Window::default_attributes().with_title("sample").with_inner_size(size);
        let window = event_loop.create_window(attributes).context("window")?;
        let display = event_loop.owned_display_handle();
        let display_handle = display.display_handle().context("display")?.as_raw();
        let extensions = ash_window::enumerate_required_extensions(display_handle)
            .context("extensions of the window system")?;
        let instance = Rc::new(Instance::new(loader::load()?, extensions)?);
        let surface = Surface::new(&instance, window, display)?;
        let physical = physical::pick(&instance, &options.device, Some(&surface))?;
        let gpu = Rc::new(Gpu::new(instance, physical)?);
        Ok(Self { renderer: Renderer::new(&gpu, options.size)?, swapchain: Swapchain::new(&gpu, surface)? })
    }

    /// Draws one more frame. Answers whether there is another to come.
    fn redraw(&mut self, options: &Options) -> Result<bool> {
        self.swapchain.surface().window.pre_present_notify();
        self.renderer.frame(Some(&mut self.swapchain))?;
        self.swapchain.surface().window.request_redraw();
        Ok(self.renderer.frames() < options.frames)
    }
}

/// The surface of a window, and the window itself.
pub(crate) struct Surface {
    handle: vk::SurfaceKHR,
    functions: khr::surface::Instance,
    // After the surface: fields drop when `Drop` is through, in this order.
    window: Window,
    _display: OwnedDisplayHandle,
    _instance: Rc<Instance>,
}

impl Surface {
    fn new(instance: &Rc<Instance>, window: Window, display: OwnedDisplayHandle) -> Result<Self> {
        let display_handle = display.display_handle().context("display")?.as_raw();
        let window_handle = window.window_handle().context("window")?.as_raw();
        // SAFETY: the instance has the extensions of this window system; window and display belong together.
        // The surface keeps all three, and `Drop` destroys it before them.
        let handle = unsafe {
            ash_window::create_surface(&instance.entry, &instance.raw, display_handle, window_handle, None)
        }
        .context("surface of the window")?;
        let functions = khr::surface::Instance::new(&instance.entry, &instance.raw);
        Ok(Self { handle, functions, window, _display: display, _instance: Rc::clone(instance) })
    }

    pub(crate) fn handle(&self) -> vk::SurfaceKHR {
        self.handle
    }

    pub(crate) fn can_present(&self, device: vk::PhysicalDevice, queue_family: u32) -> Result<bool> {
        // SAFETY: device and surface are of one live instance; the caller has the family from the device.
        unsafe { self.functions.get_physical_device_surface_support(device, queue_family, self.handle) }
            .context("vkGetPhysicalDeviceSurfaceSupportKHR")
    }

    pub(crate) fn capabilities(&self, device: vk::PhysicalDevice) -> Result<vk::SurfaceCapabilitiesKHR> {
        // SAFETY: device and surface are of one live instance.
        unsafe { self.functions.get_physical_device_surface_capabilities(device, self.handle) }
            .context("vkGetPhysicalDeviceSurfaceCapabilitiesKHR")
    }

    /// A format that takes the picture's colours as they are, if the surface has one.
    pub(crate) fn format(&self, device: vk::PhysicalDevice) -> Result<vk::SurfaceFormatKHR> {
        // SAFETY: device and surface are of one live instance.
        let formats = unsafe { self.functions.get_physical_device_surface_formats(device, self.handle) }
            .context("vkGetPhysicalDeviceSurfaceFormatsKHR")?;
        let plain = [vk::Format::B8G8R8A8_UNORM, vk::Format::R8G8B8A8_UNORM];
        let format = formats.iter().find(|format| plain.contains(&format.format)).or(formats.first());
        format.copied().ok_or_else(|| Error::new("the window has no format"))
    }

    /// How large the images of the window are to be.
    pub(crate) fn extent(&self, capabilities: &vk::SurfaceCapabilitiesKHR) -> vk::Extent2D {
        // `u32::MAX` says that the images decide how large the window is, as they do on Wayland.
        if capabilities.current_extent.width != u32::MAX {
            return capabilities.current_extent;
        }
        let (size, least, most) =
            (self.window.inner_size(), capabilities.min_image_extent, capabilities.max_image_extent);
        vk::Extent2D {
            width: size.width.clamp(least.width, most.width),
            height: size.height.clamp(least.height, most.height),
        }
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: the surface's owner has destroyed its swapchain; instance, window and display are still
        // here.
        unsafe { self.functions.destroy_surface(self.handle, None) };
    }
}
