//! As much of an X client as it takes to tell which frame a program has left on the screen, over the
//! bare protocol: a handful of requests, no library.
//!
//! A program that draws a number of frames and exits takes its window with it, and whoever looks while
//! it runs sees whichever frame is there. So this client covers the screen with a window that has no
//! background, below all those to come: the server has then nothing to paint where a window was, and its
//! last frame stays to be seen.
//!
//! Which one that is, is not certain either: drivers put frames on the screen from a thread of their
//! own, and may drop the last ones when the swapchain goes. So this client also counts what is drawn,
//! with the DAMAGE extension. The server deals with one request at a time, and tells of each drawing
//! before it answers the request for the picture: number and picture belong together.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::Picture;
use crate::run::POLL;

/// A connection to an X server on this machine, whose screen is expected to have 32-bit BGRX pixels.
pub(crate) struct Connection {
    stream: UnixStream,
    root: u32,
    /// The one window that this client makes.
    canvas: u32,
    width: u16,
    height: u16,
    /// The code of the event that tells of a drawing.
    damage_event: u8,
    /// How many of them there were.
    drawings: u32,
}

const CREATE_WINDOW: u8 = 1;
const MAP_WINDOW: u8 = 8;
const QUERY_TREE: u8 = 15;
const GET_IMAGE: u8 = 73;
const QUERY_EXTENSION: u8 = 98;

/// How long the server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

impl Connection {
    /// Connects to display `:number`, covers its screen and begins to count.
    pub(crate) fn open(number: u32) -> io::Result<Self> {
        let mut stream = UnixStream::connect(format!("/tmp/.X11-unix/X{number}"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        // Little-endian, protocol 11.0, no authorisation.
        stream.write_all(&[b'l', 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let mut setup = vec![0; 4 * usize::from(u16_at(&head, 6))];
        stream.read_exact(&mut setup)?;
        if head[0] != 1 {
            return Err(io::Error::other(format!("refused: {}", String::from_utf8_lossy(&setup))));
        }
        // The first screen follows the vendor's name, padded, and the pixmap formats.
        let vendor = usize::from(u16_at(&setup, 16)).next_multiple_of(4);
        let screen = 32 + vendor + 8 * usize::from(setup[21]);
        let mut connection = Self {
            stream,
            root: u32_at(&setup, screen),
            canvas: u32_at(&setup, 4),
            width: u16_at(&setup, screen + 20),
            height: u16_at(&setup, screen + 22),
            damage_event: u8::MAX,
            drawings: 0,
        };
        connection.cover_screen()?;
        connection.watch_screen()?;
        Ok(connection)
    }

    /// Makes the window on which others leave what they showed. The root window will not do: the server
    /// gives it a background of its own where it has none.
    fn cover_screen(&mut self) -> io::Result<()> {
        const COPY_DEPTH: u8 = 0;
        const COPY_VISUAL: u32 = 0;
        const NO_BORDER_INPUT_OUTPUT: u32 = 1 << 16;
        const BACKGROUND_PIXMAP: u32 = 1;
        const NONE: u32 = 0;
        let (origin, size) = (0, self.size());
        let geometry = [origin, size, NO_BORDER_INPUT_OUTPUT, COPY_VISUAL];
        let words = [&[self.canvas, self.root], &geometry[..], &[BACKGROUND_PIXMAP, NONE]].concat();
        self.request(CREATE_WINDOW, COPY_DEPTH, &words)?;
        self.request(MAP_WINDOW, 0, &[self.canvas])
    }

    /// Asks to be told of whatever is drawn, in whichever window.
    fn watch_screen(&mut self) -> io::Result<()> {
        const QUERY_VERSION: u8 = 0;
        const CREATE: u8 = 1;
        const EACH_DRAWING: u32 = 0;
        let name = [u32::from_le_bytes(*b"DAMA"), u32::from_le_bytes(*b"GE\0\0")];
        self.request(QUERY_EXTENSION, 0, &[6, name[0], name[1]])?;
        let (head, _) = self.reply()?;
        let [present, damage, first_event] = [head[8], head[9], head[10]];
        if present == 0 {
            return Err(io::Error::other("no DAMAGE extension"));
        }
        self.damage_event = first_event;
        self.request(damage, QUERY_VERSION, &[1, 1])?;
        self.reply()?;
        self.request(damage, CREATE, &[self.canvas + 1, self.root, EACH_DRAWING])?;
        // That request has no reply, this one has: the server has dealt with both.
        self.count_windows()?;
        // It began with the tale of what was there already.
        self.drawings = 0;
        Ok(())
    }

    /// The whole screen once no other window is left on it, and the number of drawings that made it;
    /// `TimedOut` if that takes longer than `limit`.
    pub(crate) fn picture_without_windows(&mut self, limit: Duration) -> io::Result<(u32, Picture)> {
        let deadline = Instant::now() + limit;
        while self.count_windows()? != 1 {
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "there is still a window on the screen"));
            }
            thread::sleep(POLL);
        }
        let picture = self.picture()?;
        Ok((self.drawings, picture))
    }

    /// How many windows there are directly below the root.
    fn count_windows(&mut self) -> io::Result<u16> {
        self.request(QUERY_TREE, 0, &[self.root])?;
        let (head, _) = self.reply()?;
        Ok(u16_at(&head, 16))
    }

    fn picture(&mut self) -> io::Result<Picture> {
        const Z_PIXMAP: u8 = 2;
        let (origin, all_planes) = (0, u32::MAX);
        self.request(GET_IMAGE, Z_PIXMAP, &[self.canvas, origin, self.size(), all_planes])?;
        let (_, bytes) = self.reply()?;
        let pixels: Vec<_> =
            bytes.as_chunks().0.iter().map(|&[blue, green, red, _]| [red, green, blue, 255]).collect();
        let (width, height) = (u32::from(self.width), u32::from(self.height));
        if pixels.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(io::Error::other(format!("{} bytes for a screen of {width}x{height}", bytes.len())));
        }
        Ok(Picture::new(width, height, pixels))
    }

    /// Width and height as one word of a request.
    fn size(&self) -> u32 {
        u32::from(self.width) | u32::from(self.height) << 16
    }

    fn request(&mut self, opcode: u8, data: u8, words: &[u32]) -> io::Result<()> {
        // The length counts words, this first one included.
        let length = u32::try_from(words.len() + 1).map_err(io::Error::other)?;
        let head = u32::from(opcode) | u32::from(data) << 8 | length << 16;
        let bytes: Vec<u8> = [&[head], words].concat().iter().flat_map(|word| word.to_le_bytes()).collect();
        self.stream.write_all(&bytes)
    }

    /// The reply to the last request: its fixed part, and what follows. Drawings are counted on the way.
    fn reply(&mut self) -> io::Result<([u8; 32], Vec<u8>)> {
        loop {
            let mut head = [0; 32];
            self.stream.read_exact(&mut head)?;
            match head[0] {
                0 => return Err(io::Error::other(format!("X error {}", head[1]))),
                1 => {
                    let mut rest = Vec::new();
                    let length = 4 * u64::from(u32_at(&head, 4));
                    (&mut self.stream).take(length).read_to_end(&mut rest)?;
                    return Ok((head, rest));
                }
                event if event == self.damage_event => self.drawings += 1,
                // The few that come unasked.
                _ => {}
            }
        }
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | u32::from(u16_at(bytes, offset + 2)) << 16
}
