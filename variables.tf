# ---------------------------------------------------------------------------------------
# Datadog
# ---------------------------------------------------------------------------------------

variable "ddg_api_key" {
  type        = string
  description = "Datadog API key to send points with. To apply, give it or `ddg_api_key_secret_arn`; destroy needs neither. The key is visible in Terraform's state and in the function's environment; with the secret it isn't."
  default     = null
  sensitive   = true

  validation {
    condition     = var.ddg_api_key == null || can(regex("^[!-~]+$", var.ddg_api_key))
    error_message = "ddg_api_key is the key alone: printable ASCII characters, no white space."
  }
}

variable "ddg_app_key" {
  type        = string
  description = "Datadog application key. It goes into the function's environment beside `ddg_api_key`. Sending points doesn't need it: leave it out unless you have a reason."
  default     = null
  sensitive   = true

  validation {
    condition     = var.ddg_app_key == null || can(regex("^[!-~]+$", var.ddg_app_key))
    error_message = "ddg_app_key is the key alone: printable ASCII characters, no white space."
  }
}

variable "ddg_api_key_secret_arn" {
  type        = string
  description = "ARN of a Secrets Manager secret that holds the Datadog API key, instead of the two keys. The key is then neither in the state nor in the environment, and a rotated key needs no deploy. The secret is the key alone or JSON such as `{\"api_key\": \"...\"}`."
  default     = null

  validation {
    condition     = var.ddg_api_key_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+-[A-Za-z0-9]{6}$", var.ddg_api_key_secret_arn))
    error_message = "ddg_api_key_secret_arn is the whole ARN as `aws secretsmanager describe-secret` prints it, with the six characters that Secrets Manager adds at its end: arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf."
  }
}

variable "ddg_api_key_kms_key_arn" {
  type        = string
  description = "ARN of your own KMS key, if one encrypts the secret of `ddg_api_key_secret_arn`. Leave it out if the secret uses the AWS-managed key aws/secretsmanager."
  default     = null

  validation {
    condition     = var.ddg_api_key_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.ddg_api_key_kms_key_arn))
    error_message = "ddg_api_key_kms_key_arn is the ARN of a key, not of an alias: arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

variable "ddg_site" {
  type        = string
  description = "Datadog site that your API key belongs to, such as datadoghq.eu: the address bar when you are logged in, without `app.`. On any other site nothing arrives."
  default     = "datadoghq.com"
  nullable    = false

  validation {
    condition     = contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site) || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+(datadoghq\\.com|ddog-gov\\.com)$", var.ddg_site)) && !can(regex("^(api|app)\\.", var.ddg_site))
    error_message = "ddg_site is one of datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, ddog-gov.com, us2.ddog-gov.com or another host under datadoghq.com or ddog-gov.com: no https://, no api. or app. before it."
  }
}

variable "max_age_seconds" {
  type        = number
  description = "Maximum age of a timestamp, in seconds. Older files are refused, because Datadog would silently drop their points. 0 means no limit: only for metrics that have Historical Metrics Ingestion on."
  default     = 3600
  nullable    = false

  validation {
    condition     = var.max_age_seconds >= 0 && var.max_age_seconds <= 9999999999 && floor(var.max_age_seconds) == var.max_age_seconds
    error_message = "max_age_seconds is a whole number of seconds from 0 (no limit) to 9999999999; Datadog takes 3600 by default."
  }
}

variable "constant_tags" {
  type        = list(string)
  description = "Tags for every point of this stack, such as [\"env:prod\", \"team:data\"]. Datadog bills each combination of a metric and its tags as a custom metric."
  default     = []
  nullable    = false

  validation {
    condition     = length(var.constant_tags) <= 99 && alltrue([for tag in var.constant_tags : can(regex("^\\pL[^,\\s]{0,199}$", tag))])
    error_message = "constant_tags are at most 99 tags such as env:prod (Datadog takes 100, and one is the job's). Each starts with a letter and has at most 200 characters, no comma and no white space."
  }
}

# ---------------------------------------------------------------------------------------
# Names and place
# ---------------------------------------------------------------------------------------

variable "name" {
  type        = string
  description = "Prefix of every name in this stack. Another name makes a second stack beside this one; changing it replaces everything."
  default     = "ddg-stats"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name is 3 to 24 characters: lower case letters, digits and hyphens, no hyphen at either end."
  }
}

variable "aws_region" {
  type        = string
  description = "Region that the stack must be in, such as eu-central-1. It configures nothing: the region is the AWS provider's, from `AWS_REGION` or your profile. If the two differ, the plan fails before anything is made or moved in the wrong place."
  default     = null

  validation {
    condition     = var.aws_region == null || can(regex("^[a-z]{2,4}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region is the code of a region such as us-east-1 or eu-central-1."
  }

  # A validation, because a precondition only warns on destroy, which would then forget the stack.
  validation {
    condition     = var.aws_region == null || var.aws_region == data.aws_region.current.id
    error_message = "aws_region is ${coalesce(var.aws_region, "not given")}, yet the AWS provider works in ${data.aws_region.current.id}. Set AWS_REGION to the region that the stack is in (in a module call, hand it a provider of that region), or correct aws_region."
  }
}

variable "tags" {
  type        = map(string)
  description = "AWS tags for everything in this stack, such as { team = \"data\" }, in addition to the provider's `default_tags`. They don't go to Datadog; `constant_tags` do."
  default     = {}
  nullable    = false

  # An empty value is legal in AWS, but the provider would plan the same change for ever.
  validation {
    condition     = alltrue([for key, value in var.tags : can(regex("^[\\pL\\pZ\\pN_.:/=+@-]{1,128}$", key)) && !startswith(lower(key), "aws:") && can(regex("^[\\pL\\pZ\\pN_.:/=+@-]{1,256}$", value))])
    error_message = "tags have keys of 1 to 128 characters that don't begin with aws:, and values of 1 to 256: letters, digits, spaces and _.:/=+-@."
  }
}

variable "zip_folder" {
  type        = string
  description = "Folder of the functions' two zips, relative to where Terraform runs. By default it is the folder of main.tf."
  default     = null

  validation {
    condition     = var.zip_folder == null || can(regex("\\S", var.zip_folder))
    error_message = "zip_folder is a folder such as ../build, or left out."
  }
}

# ---------------------------------------------------------------------------------------
# What a company may require: see docs/settings.md
# ---------------------------------------------------------------------------------------

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the IAM policy to set as permissions boundary of the functions' roles, if your account requires one."
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[!-~]+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn is the ARN of a policy, such as arn:aws:iam::123456789012:policy/boundary."
  }
}

variable "iam_role_path" {
  type        = string
  description = "IAM path of the functions' roles, such as /teams/data/. Changing it replaces the roles."
  default     = null

  validation {
    condition     = var.iam_role_path == null || can(regex("^/([!-.0-~]{1,510}/)*$", var.iam_role_path)) && try(length(var.iam_role_path), 0) <= 512
    error_message = "iam_role_path begins and ends with a slash, such as /teams/data/, and has at most 512 characters."
  }
}

variable "subnet_ids" {
  type        = list(string)
  description = "Subnets of your VPC to run the functions in, together with `security_group_ids`. From there the functions must reach S3, SQS and Datadog, through a NAT gateway or endpoints. By default they run outside any VPC of yours."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-z]+$", id))])
    error_message = "subnet_ids are IDs such as subnet-0123456789abcdef0."
  }

  validation {
    condition     = (length(var.subnet_ids) > 0) == (length(var.security_group_ids) > 0)
    error_message = "subnet_ids and security_group_ids go together: give both or neither."
  }
}

variable "security_group_ids" {
  type        = list(string)
  description = "Security groups of the functions in `subnet_ids`. They need outgoing HTTPS and nothing incoming."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.security_group_ids : can(regex("^sg-[0-9a-z]+$", id))])
    error_message = "security_group_ids are IDs such as sg-0123456789abcdef0."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of your KMS key for the queues, the bucket, the alarms' topic and the logs. First add the statements of the output `kms_key_statements` to the key's policy. By default AWS's own keys encrypt all of them but the topic."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:${data.aws_region.current.id}:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key of the stack's region, not of an alias: arn:aws:kms:${data.aws_region.current.id}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

variable "architectures" {
  type        = list(string)
  description = "Processor architecture of the functions: [\"arm64\"], or [\"x86_64\"] for a region without arm64. The zips run on both."
  default     = ["arm64"]
  nullable    = false

  validation {
    condition     = contains(["arm64", "x86_64"], join(" ", var.architectures))
    error_message = "architectures is [\"arm64\"] or [\"x86_64\"]."
  }
}

# ---------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------

variable "stats_prefix" {
  type        = string
  description = "Folder of the bucket that the stats files are in. The folder below it names the job: stats/nightly/1.json belongs to job:nightly. Change it only while no file waits, because files under the old prefix can't be read any more."
  default     = "stats/"
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+/)+$", var.stats_prefix)) && length(var.stats_prefix) <= 256
    error_message = "stats_prefix is a folder such as stats/ or jobs/stats/: letters, digits and ._- between slashes, one slash at its end, none at its beginning, at most 256 characters."
  }
}

variable "file_retention_days" {
  type        = number
  description = "Days after which S3 deletes a stats file. The message about a refused file is kept for 14 days, so the file must be kept longer."
  default     = 30
  nullable    = false

  validation {
    condition     = var.file_retention_days >= 15 && floor(var.file_retention_days) == var.file_retention_days
    error_message = "file_retention_days is a whole number of days, at least 15: a refused file must outlive its message, which is kept for 14."
  }
}

variable "force_destroy" {
  type        = bool
  description = "Whether `terraform destroy` deletes the files that are still in the bucket. WARNING: true, the default, deletes them without asking; they expire anyway. To keep them, set it to false and apply before you destroy. Destroy then removes everything but the bucket, and ends with an error about it."
  default     = true
  nullable    = false
}

# ---------------------------------------------------------------------------------------
# Jobs and metrics: docs/settings.md has the attributes
# ---------------------------------------------------------------------------------------

# Of any type, because Terraform silently drops unknown attributes of a typed object.
variable "jobs" {
  type        = any
  description = "What the stack should know about a job, by the name of its folder. `mapping` is a JMESPath expression that makes metrics of the job's files, whatever JSON they hold; no plan can check it, so try it with `ddg-ops validate` first. `silent_after_hours` sets an alarm for when no file of the job has been submitted for so long. Such as { nightly = { silent_after_hours = 26 } }."
  default     = {}
  nullable    = false

  validation {
    condition     = can([for job in values(var.jobs) : keys(job)])
    error_message = "jobs maps folders to attributes, such as { backup = { mapping = \"numbers(@)\" } }."
  }

  validation {
    condition     = alltrue([for job in try(keys(var.jobs), []) : can(regex("^[^/]+$", job))])
    error_message = "jobs are named by their folder, the first one below the prefix: not empty, no slash."
  }

  validation {
    condition     = length(setsubtract(flatten([for job in try(values(var.jobs), []) : try(keys(job), [])]), ["mapping", "silent_after_hours"])) == 0
    error_message = "jobs have no attribute ${join(", ", setsubtract(flatten([for job in try(values(var.jobs), []) : try(keys(job), [])]), ["mapping", "silent_after_hours"]))}: there are mapping and silent_after_hours."
  }

  validation {
    condition     = alltrue([for job in try(values(var.jobs), []) : try(job.mapping, null) == null || can(regex("\\S", job.mapping))])
    error_message = "jobs have a mapping that is a JMESPath expression, such as \"numbers(@)\", or none."
  }

  validation {
    condition     = alltrue([for job in try(values(var.jobs), []) : try(job.silent_after_hours, null) == null || try(job.silent_after_hours >= 1 && job.silent_after_hours <= 167 && floor(job.silent_after_hours) == tonumber(job.silent_after_hours), false)])
    error_message = "jobs have a silent_after_hours that is a whole number from 1 to 167: CloudWatch looks back seven days at most, so a weekly job can't be watched."
  }

  validation {
    condition     = alltrue([for name, job in try({ for name, job in var.jobs : name => job }, {}) : try(job.silent_after_hours, null) == null || can(regex("^[ -~]{1,200}$", name)) && can(regex("\\S", name))])
    error_message = "jobs with silent_after_hours have a name of at most 200 printable ASCII characters: it is a dimension in CloudWatch."
  }
}

variable "metrics" {
  type        = any
  description = "What Datadog and the dashboard should know about a metric, by its whole name: { \"processed.data\" = { type = \"count\", interval = 86400 } }. `type` is `gauge`, the default, or `count`; `interval` is the seconds that a count covers. Decide before the first point: changing the type later spoils the metric's history in Datadog."
  default     = {}
  nullable    = false

  validation {
    condition     = can([for metric in values(var.metrics) : keys(metric)])
    error_message = "metrics maps names to attributes, such as { \"processed.data\" = { type = \"count\", interval = 86400 } }."
  }

  validation {
    condition     = alltrue([for name in try(keys(var.metrics), []) : can(regex("^[A-Za-z][A-Za-z0-9_.]{0,199}$", name)) && !can(regex("__|_\\.|\\._|_$", name))])
    error_message = "metrics are given by their whole names, metric_prefix included: a letter first, then letters, digits, dots and single _ between letters or digits, at most 200 characters."
  }

  validation {
    condition     = length(setsubtract(flatten([for metric in try(values(var.metrics), []) : try(keys(metric), [])]), ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"])) == 0
    error_message = "metrics have no attribute ${join(", ", setsubtract(flatten([for metric in try(values(var.metrics), []) : try(keys(metric), [])]), ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"]))}: there are type and interval, and for dashboard/ unit, per_unit, short_name, description and monitor."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.type, null) == null || try(contains(["gauge", "count"], metric.type), false)])
    error_message = "metrics have a type that is gauge or count. A distribution isn't possible: Datadog would count a file twice that is delivered twice, while a gauge or a count overwrites itself."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.interval, null) == null || try(metric.interval >= 1 && metric.interval <= 31536000 && floor(metric.interval) == tonumber(metric.interval), false)])
    error_message = "metrics have an interval that is a whole number of seconds from 1 to 31536000 (a year)."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.interval, null) == null || try(metric.type, null) == "count"])
    error_message = "metrics have an interval only with type = \"count\": it is the seconds that a count covers."
  }
}

variable "metric_prefix" {
  type        = string
  description = "Prefix of every metric's name, such as `etl.`, except for names that begin with `ddg.`. Only the whole name must follow the rules for names."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z][A-Za-z0-9_.]{0,198})?$", var.metric_prefix)) && !can(regex("__|_\\.|\\._", var.metric_prefix))
    error_message = "metric_prefix is empty, or what a metric's name can begin with, such as etl.: a letter first, then letters, digits, dots and single _, at most 199 characters."
  }
}

# ---------------------------------------------------------------------------------------
# Existing buckets: docs/buckets.md
# ---------------------------------------------------------------------------------------

variable "create_bucket" {
  type        = bool
  description = "Whether the stack has its own bucket, and with it the generator or the heartbeat. Without it the stack takes files from `buckets` alone. Turning it off deletes the bucket, as `destroy` does."
  default     = true
  nullable    = false

  validation {
    condition     = var.create_bucket || length(var.buckets) > 0
    error_message = "create_bucket = false leaves no bucket to take files from: name at least one in buckets."
  }
}

# Maps of strings, because Terraform silently drops unknown attributes of a typed object.
variable "buckets" {
  type        = map(map(string))
  description = "Buckets that you already have, to take files from as well: name to attributes, such as { acme-data = { prefix = \"etl/stats/\" } }. Their notifications stay as they are; the output `bucket_steps` says what is left to do. [buckets.md](buckets.md) explains the attributes: `prefix`, `notify`, `topic_arn`, `account_id`, `kms_key_arn`."
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.buckets) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "buckets are given by name, such as acme-data: 3 to 63 characters, no s3://, no ARN, no folder."
  }

  validation {
    condition     = !contains(keys(var.buckets), local.bucket_name)
    error_message = "buckets has ${local.bucket_name}, which is the stack's own: leave it out, create_bucket = true is enough."
  }

  validation {
    condition     = length(setsubtract(flatten([for given in var.buckets : try(keys(given), [])]), ["prefix", "notify", "topic_arn", "account_id", "kms_key_arn"])) == 0
    error_message = "buckets have no attribute ${join(", ", setsubtract(flatten([for given in var.buckets : try(keys(given), [])]), ["prefix", "notify", "topic_arn", "account_id", "kms_key_arn"]))}: there are prefix, notify, topic_arn, account_id and kms_key_arn."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.prefix, null) == null || can(regex("^(|[^*?$%\\x60\\x27\\x22\\x5C\\pC]{0,511}/)$", given.prefix))])
    error_message = "buckets have a prefix that ends in a slash, such as etl/stats/, or is empty for the whole bucket: at most 512 characters, no quotes, no backslash, none of *?$%."
  }

  validation {
    condition     = alltrue([for given in var.buckets : contains(["eventbridge", "sns", "s3"], coalesce(try(given.notify, null), "s3"))])
    error_message = "buckets have a notify that is eventbridge, sns or s3, or none: that is eventbridge, and sns with a topic_arn."
  }

  validation {
    condition     = alltrue([for given in var.buckets : (try(given.topic_arn, null) == null) == (coalesce(try(given.notify, null), try(given.topic_arn, null) == null ? "s3" : "sns") != "sns")])
    error_message = "buckets have a topic_arn with notify = \"sns\", and with that alone."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.topic_arn, null) == null || can(regex("^arn:aws[a-z-]*:sns:${data.aws_region.current.id}:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", given.topic_arn))])
    error_message = "buckets have a topic_arn of the stack's region, no FIFO topic: arn:aws:sns:${data.aws_region.current.id}:123456789012:uploads."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.account_id, null) == null || can(regex("^[0-9]{12}$", given.account_id))])
    error_message = "buckets have an account_id of 12 digits, in quotes where the first is 0: the owner's, if that is another account."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.kms_key_arn, null) == null || can(regex("^arn:aws[a-z-]*:kms:${data.aws_region.current.id}:[0-9]{12}:key/[A-Za-z0-9-]+$", given.kms_key_arn))])
    error_message = "buckets have a kms_key_arn of the stack's region, of a key and not of an alias: arn:aws:kms:${data.aws_region.current.id}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

# ---------------------------------------------------------------------------------------
# Generator
# ---------------------------------------------------------------------------------------

variable "mock_datasource_enabled" {
  type        = bool
  description = "Whether the generator writes sample files; it needs the stack's own bucket. Turn it off once your own jobs write files."
  default     = true
  nullable    = false
}

variable "mock_interval_minutes" {
  type        = number
  description = "Minutes between two files of the generator, from 1 to 1440 (a day)."
  default     = 1
  nullable    = false

  validation {
    condition     = var.mock_interval_minutes >= 1 && var.mock_interval_minutes <= 1440 && floor(var.mock_interval_minutes) == var.mock_interval_minutes
    error_message = "mock_interval_minutes is a whole number of minutes from 1 to 1440."
  }
}

variable "heartbeat_schedule" {
  type        = string
  description = "How often the heartbeat writes a file while the generator is off, or null for never. The alarm nothing-submitted goes on after three missing files. The heartbeat needs the stack's own bucket; without it only watched `jobs` tell that the pipeline has stopped."
  default     = "rate(15 minutes)"

  # From a cron expression the alarm couldn't tell how long to wait.
  validation {
    condition     = var.heartbeat_schedule == null || can(regex("^rate\\((1 (minute|hour|day)|([2-9]|[1-9][0-9]{1,2}|1[0-4][0-9]{2}) minutes|([2-9]|1[0-9]|2[0-4]) hours)\\)$", var.heartbeat_schedule))
    error_message = "heartbeat_schedule is a rate from a minute to a day, such as rate(15 minutes) or rate(1 hour), or null for none."
  }
}

# Without this declaration Terraform would only warn, and the schedule would change almost unnoticed.
variable "mock_schedule" {
  type        = string
  description = "The schedule in 1.0. It is refused now: use `mock_interval_minutes`."
  default     = null

  validation {
    condition     = var.mock_schedule == null
    error_message = "mock_schedule is now mock_interval_minutes: rate(5 minutes) is 5."
  }
}

# ---------------------------------------------------------------------------------------
# Submitter: docs/scaling.md says when to raise which
# ---------------------------------------------------------------------------------------

variable "batch_size" {
  type        = number
  description = "Maximum number of files per invocation of the submitter. More than 10 need a `batch_window`."
  default     = 10
  nullable    = false

  validation {
    condition     = var.batch_size >= 1 && var.batch_size <= 10000 && floor(var.batch_size) == var.batch_size
    error_message = "batch_size is a whole number from 1 to 10000."
  }

  validation {
    condition     = var.batch_size <= 10 || var.batch_window >= 1
    error_message = "batch_size over 10 needs a batch_window of at least 1 second: AWS refuses it otherwise."
  }
}

variable "batch_window" {
  type        = number
  description = "Seconds that AWS may wait for a batch to fill. 0 sends each file at once; with any other value a file may wait up to 20 seconds on a quiet queue."
  default     = 0
  nullable    = false

  validation {
    condition     = var.batch_window >= 0 && var.batch_window <= 300 && floor(var.batch_window) == var.batch_window
    error_message = "batch_window is a whole number of seconds from 0 to 300."
  }
}

variable "maximum_concurrency" {
  type        = number
  description = "Maximum concurrent invocations of the submitter. Further files wait in the queue. A new AWS account allows 10 for all its functions together."
  default     = 5
  nullable    = false

  validation {
    condition     = var.maximum_concurrency >= 2 && var.maximum_concurrency <= 1000 && floor(var.maximum_concurrency) == var.maximum_concurrency
    error_message = "maximum_concurrency is a whole number from 2 to 1000."
  }
}

variable "memory_size" {
  type        = number
  description = "Memory of the submitter in MiB. Its share of a CPU grows with it."
  default     = 512
  nullable    = false

  validation {
    condition     = var.memory_size >= 128 && var.memory_size <= 10240 && floor(var.memory_size) == var.memory_size
    error_message = "memory_size is a whole number of MiB from 128 to 10240."
  }
}

# ---------------------------------------------------------------------------------------
# Logs and alarms
# ---------------------------------------------------------------------------------------

variable "log_retention_days" {
  type        = number
  description = "Days that CloudWatch keeps the functions' logs."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of the numbers that CloudWatch takes: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "log_files" {
  type        = bool
  description = "Whether the submitter logs the address of each file that it submits, so that `ddg-ops where` can find it. For a million files this costs about 0.05 dollars."
  default     = true
  nullable    = false
}

variable "alarm_email" {
  type        = string
  description = "Address to mail alarms to; AWS asks it to confirm first. Without it, alarms are visible in CloudWatch and go to the SNS topic of the output `alarm_topic_arn`."
  default     = null

  validation {
    condition     = var.alarm_email == null || can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alarm_email))
    error_message = "alarm_email is one address such as oncall@example.com."
  }
}
