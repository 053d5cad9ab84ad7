"""GigE Vision cameras as devices: properties are GenICam features, images are PNG or PNM."""
