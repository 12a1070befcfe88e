-- Bytes of the data of a channel's rows in `log`, also of those that wait to be swept: so that what a tenant keeps can be summed and
-- bounded without walking through the logs.
ALTER TABLE channel ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0 CHECK (log_bytes >= 0);

UPDATE channel SET log_bytes = coalesce((SELECT sum(length(data)) FROM log WHERE log.channel = channel.id), 0);
