"""A trained network in the browser.

`rendering` draws the field from any camera, `live` does so again and again, coarse first, `scene`
makes objects of what a person sets; none of them knows of browsers. `page` puts them behind a
page, `server` opens one for every browser.
"""
